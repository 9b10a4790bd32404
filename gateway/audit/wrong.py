"""What a check of rows finds."""

from __future__ import annotations

from typing import NamedTuple


class Wrong(NamedTuple):
    """A row that is not as the gateway left it, or does not follow from the records."""

    table: str
    key: str
    fault: str
