"""What the tests of the whole gateway share: one gateway with its upstreams for those that only use it, and a way to
make one of their own for those that stop, kill or reconfigure it. Each test brings its own agent."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.e2e.gateway_process import Agent, Gateway, Ledger
from tests.e2e.upstream import Upstream
from tests.e2e.wiretap import Wiretap

_names = itertools.count(1)

# Agents whose limits tests run into; each is used by one test.
LIMITS = """\
  agents:
    two-a-minute: {requests_per_minute: 2}
    one-at-a-time: {concurrency: 1}
    penniless: {budgets: [{window: day, usd: "0.000001"}]}
"""


class House:
    """A gateway, the model provider and the ledger behind it, and the wire to the ledger."""

    def __init__(self, gateway: Gateway, upstream: Upstream, ledger: Ledger | None, wire: Wiretap | None) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self._ledger = ledger
        self._wire = wire

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None, "this house was made without a ledger"
        return self._ledger

    @property
    def wire(self) -> Wiretap:
        assert self._wire is not None, "this house was made without a ledger"
        return self._wire

    def agent(self, name: str = "agent") -> Agent:
        """A new agent of its own for a test."""
        return self.gateway.agent(f"{name}-{next(_names)}")


class MakesHouse(Protocol):
    def __call__(self, *faults: str, ledger: bool = True, start: bool = True, **options: Any) -> House: ...


@contextlib.contextmanager
def open_house(folder: Path, *faults: str, ledger: bool = True, start: bool = True, **options: Any) -> Iterator[House]:
    """`faults` are the ledger's; `options` go to `Gateway`. Not started, or without a ledger, it is there sooner."""
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(Upstream())
        bank = wire = url = None
        if ledger:
            bank = Ledger(folder / "ledger.db", *faults)
            stack.callback(bank.close)
            wire = stack.enter_context(Wiretap(bank.port))
            url = f"http://127.0.0.1:{wire.port}/mcp"
        gateway = Gateway(folder / "gateway", upstream.url, url, **options)
        stack.callback(gateway.close)
        if start:
            gateway.start(tools=ledger)
        yield House(gateway, upstream, bank, wire)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The shared one: nothing that a test does to it may be seen by another."""
    with open_house(tmp_path_factory.mktemp("house"), limits=LIMITS) as house:
        yield house


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Houses of a test's own."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count(1)

        def make(*faults: str, **options: Any) -> House:
            folder = tmp_path / f"house-{next(numbers)}"
            folder.mkdir()
            return stack.enter_context(open_house(folder, *faults, **options))

        yield make
