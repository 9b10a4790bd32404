"""The HTTP client and the tool servers are tested on both event loops: uvloop, which serves, and asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    both: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "uvloop": uvloop.new_event_loop,
        "asyncio": asyncio.new_event_loop,
    }
    if item.path.name.startswith(("test_wire", "test_tool_")):
        return both
    return {"asyncio": both["asyncio"]}
