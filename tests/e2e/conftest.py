from __future__ import annotations

from tests.e2e.fixtures import house, make_house

__all__ = ["house", "make_house"]
