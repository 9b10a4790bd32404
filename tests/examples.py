"""How many examples of a property are tried: few by `make test`, many by `make drill`."""

from __future__ import annotations

import pytest


def examples(few: int, many: int) -> pytest.MarkDecorator:
    """Gives the test `examples`: as many as it is to try."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.drill)])
