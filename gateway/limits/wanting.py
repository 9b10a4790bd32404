"""What a call needs of the shared limits and this replica was not granted yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.errors import Refusal
from gateway.limits import refusals
from gateway.limits.account import Spend
from gateway.limits.exchange import Counter, Want
from gateway.limits.leases import Share, SharedMinute
from gateway.limits.shared_account import SharedAccount
from gateway.limits.windows import Windows

PARTS = {"concurrency": 10, "requests_per_minute": 60, "tokens_per_minute": 60, "nanousd": 50, "tokens": 50}
"""A block taken ahead is this part of the limit."""


class Wanted(NamedTuple):
    """What is missing in one counter of one account. `need` 0: only what the others hold is asked for."""

    account: SharedAccount
    share: Share | SharedMinute
    need: int
    amount: int = 0  # of the whole request, for the sentence


Missing = Callable[[int, bool], list[Wanted]]
"""(second, whether also all that fits) -> what has to be asked for."""


def missing_entry(accounts: tuple[SharedAccount, ...], now_s: int, everything: bool) -> list[Wanted]:
    """What is missing before a call can enter all of these. `everything`: also what fits already."""
    wanted = []
    for account in accounts:
        if not account.is_limited:
            continue
        for share in account.shares:
            if share.owner is account:
                short = account.in_flight + 1 - account.concurrency
                if everything or short > 0 or not account.is_known:
                    wanted.append(Wanted(account, share, max(0, short)))
            elif not account.is_known and not everything:
                wanted.append(Wanted(account, share, 0))
        if account.requests.limit is not None:
            is_full = account.requests.used(now_s) >= account.minute_requests
            if everything or is_full:
                wanted.append(Wanted(account, account.requests, int(is_full)))
    return wanted


def missing_room(
    accounts: tuple[SharedAccount, ...],
    place: SharedAccount | None,
    nanousd: int,
    tokens: int,
    windows: Windows,
    now_s: int,
    everything: bool,
) -> list[Wanted]:
    """What is missing before so much can be held at all of these, and `place` (a tool's or a model's) be entered."""
    wanted = []
    if place is not None:
        wanted = missing_entry((place,), now_s, everything)
    for account in accounts:
        if account.windows is not windows:
            account.turn(windows)
        for share in account.shares:
            amount = nanousd if share.counter == "nanousd" else tokens if share.counter == "tokens" else 0
            short = share.used + amount - share.granted
            if amount and (short > 0 or everything):
                wanted.append(Wanted(account, share, max(0, short), amount))
        if tokens and account.tokens.limit is not None:
            fits = account.tokens.used(now_s) + tokens <= account.minute_tokens
            if everything or not fits:
                wanted.append(Wanted(account, account.tokens, 0 if fits else tokens, tokens))
    return wanted


def want_of(wanted: Wanted) -> Want:
    """What Redis is asked for: what is missing, and a block beside it."""
    account, share, need, _ = wanted
    limit = share.limit or 0
    window = "" if isinstance(share, SharedMinute) else share.window
    mine = 0 if isinstance(share, SharedMinute) else share.granted
    block = limit // PARTS[share.counter] if need else 0
    return Want(counter_of(account, share.counter, window), limit, mine, need, need + block)


def counter_of(account: SharedAccount, counter: str, window: str) -> Counter:
    """The counter of an account."""
    return Counter(account.tenant, account.level, counter, window)


def refusal_of(wanted: Wanted, wait_s: int, now_s: int) -> Refusal:
    """Why there is no room for it."""
    account, share, _, amount = wanted
    limit = share.limit or 0
    if isinstance(share, SharedMinute):
        if share.counter == "requests_per_minute":
            return refusals.too_many_requests(account, limit, wait_s, now_s)
        left = max(0, limit - share.all_used(now_s))
        return refusals.too_many_tokens(account, amount, left, limit, wait_s, now_s)
    if share.counter == "concurrency":
        return refusals.no_place(account, share.others + share.used, now_s)
    spend: Spend = share.owner
    return refusals.over_budget(
        account, spend, share.counter, needed=amount, left=share.left, limit=limit, others=share.others
    )
