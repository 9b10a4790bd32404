"""A place that a call has while it runs, at every level; and the rates that its caller is told."""

from __future__ import annotations

from types import TracebackType

from gateway.clock import Clock
from gateway.limits.account import Account
from gateway.limits.interface import Rates


class MemoryAdmission:
    """A place taken at every level until it is released."""

    __slots__ = ("_accounts", "_clock")

    def __init__(self, accounts: tuple[Account, ...], clock: Clock) -> None:
        self._accounts = accounts
        self._clock = clock

    def release(self) -> None:
        """Give the place back; doing so twice does nothing."""
        accounts, self._accounts = self._accounts, ()
        for account in accounts:
            account.in_flight -= 1

    def rates(self) -> Rates:
        """The tightest rates as they stand now; empty once the place was given back."""
        return rates_of(self._accounts, int(self._clock.monotonic_s()))

    def __enter__(self) -> MemoryAdmission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def rates_of(accounts: tuple[Account, ...], now_s: int) -> Rates:
    """The level with the least left decides, for requests and for tokens apart."""
    requests: tuple[int, int, int] | None = None
    tokens: tuple[int, int, int] | None = None
    for account in accounts:
        limit = account.allowance.requests_per_minute
        if limit is not None:
            left = max(0, limit - account.requests_used(now_s))
            if requests is None or left < requests[0]:
                requests = (left, limit, account.requests.reset_s(now_s))
        limit = account.allowance.tokens_per_minute
        if limit is not None:
            left = max(0, limit - account.tokens_used(now_s))
            if tokens is None or left < tokens[0]:
                tokens = (left, limit, account.tokens.reset_s(now_s))
    return Rates(
        limit_requests=requests and requests[1],
        remaining_requests=requests and requests[0],
        reset_requests_s=requests[2] if requests else 0,
        limit_tokens=tokens and tokens[1],
        remaining_tokens=tokens and tokens[0],
        reset_tokens_s=tokens[2] if tokens else 0,
    )
