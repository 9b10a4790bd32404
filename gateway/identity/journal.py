"""What this room is handed to change anything: the log that makes a change durable, and the store to read from."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from gateway.store.interface import Connection

T = TypeVar("T")
Change = Callable[[Connection], None]


class Journal(Protocol):
    """Appends one audit record and makes `also` in the same transaction; durable when it returns.

    `person` is who did it, None for the gateway itself (then `labels` says by what). What `also` raises comes
    back and neither record nor change is made. Raises Refusal(audit_unavailable).
    """

    async def __call__(
        self,
        type: str,  # noqa: A002 - the record's own field name
        *,
        tenant: str,
        person: str | None,
        subject: dict[str, Any],
        labels: dict[str, str],
        also: Change,
    ) -> None: ...


class Reads(Protocol):
    """Runs a function on a read-only connection."""

    async def read(self, fn: Callable[[Connection], T]) -> T: ...


async def warm() -> None:
    """Import what changes need, off the event loop (about a second, once)."""
    await asyncio.to_thread(importlib.import_module, "gateway.identity.rows")
