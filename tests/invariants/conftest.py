from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.bank_house import Bank, a_bank
from tests.e2e.fixtures import house, make_house
from tests.gateway_house import a_running_gateway
from tests.refund_house import a_desk

__all__ = ["a_bank", "a_desk", "a_running_gateway", "house", "make_house"]


@pytest.fixture
async def agent(bank: Bank) -> AsyncIterator[httpx.AsyncClient]:
    async with await bank.running.agent() as agent:
        yield agent


@pytest.fixture
async def rita(bank: Bank) -> AsyncIterator[httpx.AsyncClient]:
    """A reviewer."""
    async with await bank.reviewer() as rita:
        yield rita


@pytest.fixture
async def rob(bank: Bank) -> AsyncIterator[httpx.AsyncClient]:
    """Another reviewer."""
    async with await bank.reviewer("rob") as rob:
        yield rob
