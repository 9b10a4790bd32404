"""What a replica tells the others with each tick, and hears: what it holds, gives back, has booked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

from gateway.limits.account import NO_CEILING, Account
from gateway.limits.exchange import OPEN_TOKENS, AwayError, Correction, Counter, Exchange
from gateway.limits.leases import SharedMinute
from gateway.limits.levels import Accounts
from gateway.limits.shared_account import SharedAccount, SharedSpend
from gateway.limits.soft import SoftBudget, TellsSoftBudget
from gateway.limits.wanting import PARTS, counter_of
from gateway.limits.windows import Windows

_HEARD_EACH_TICK = 50  # accounts of which nothing is to be told, only heard what the others hold


class Telling:
    """Of which accounts something is to be told. Who calls it asks Redis nothing else meanwhile."""

    def __init__(self, exchange: Exchange, accounts: Accounts, on_soft_budget: TellsSoftBudget) -> None:
        self._exchange = exchange
        self._accounts = accounts
        self._on_soft_budget = on_soft_budget
        self._touched: dict[int, SharedAccount] = {}
        self._heard = 0

    def touch(self, accounts: Iterable[Account]) -> None:
        """Something of these is to be told with the next tick."""
        for account in accounts:
            self._touched[id(account)] = cast("SharedAccount", account)

    def touch_all(self) -> None:
        """Something of all is to be told with the next tick."""
        self.touch(self._all())

    async def tell(self, windows: Windows, now_s: int) -> None:
        """Tell what this replica holds, and hear what the others hold. The lock is held."""
        touched, self._touched = self._touched, {}
        corrections = []
        facts: list[tuple[Counter, int]] = []
        heard: list[Callable[[int], None]] = []
        told = [account for account in touched.values() if self._accounts.has(account)]
        told += self._some_others(touched)
        for account in told:
            if account.windows is not windows:
                account.turn(windows)
            for minute in (account.requests, account.tokens):
                if minute.second != now_s:
                    minute.give_back()
                corrections += taken_back(account, minute)
            if account.tokens.limit is not None:
                facts.append((counter_of(account, OPEN_TOKENS, ""), account.tokens.open(now_s)))
                heard.append(_not_needed)
            for share in account.shares:
                block = share.limit // PARTS[share.counter] if account.active else 0
                facts.append((counter_of(account, share.counter, share.window), share.lower(block)))
                heard.append(partial(setattr, share, "others"))
            for spend in account.spends:
                for unit, soft, name in (
                    ("nanousd", spend.soft_nanousd, "others_nanousd"),
                    ("tokens", spend.soft_tokens, "others_tokens"),
                ):
                    if soft != NO_CEILING:
                        counter = f"booked_{unit}"
                        facts.append((counter_of(account, counter, spend.window), getattr(spend, counter)))
                        heard.append(partial(setattr, spend, name))
            account.is_known = True
            if account.active:
                self._touched[id(account)] = account  # its blocks are to be given back
                account.active = False
        try:
            answer = await self._exchange.tell(facts, corrections, now_s)
        except AwayError:
            keep_more(touched.values(), corrections)
            self._touched |= touched
            raise
        for hear, others in zip(heard, answer, strict=True):
            hear(others)
        await self._tell_soft(told)

    def _some_others(self, touched: dict[int, SharedAccount]) -> list[SharedAccount]:
        """A few of the accounts of which nothing is to be told; others with the next tick."""
        accounts = self._all()
        first = self._heard if self._heard < len(accounts) else 0
        self._heard = first + _HEARD_EACH_TICK
        return [account for account in accounts[first : self._heard] if id(account) not in touched]

    async def _tell_soft(self, accounts: Iterable[SharedAccount]) -> None:
        """Tell of each soft budget that all replicas together have passed; one of them does."""
        for account in accounts:
            for spend in account.spends:
                if spend.is_told or not _has_passed(spend):
                    continue
                spend.is_told = True
                if await self._exchange.is_first(counter_of(account, "told", spend.window)):
                    self._on_soft_budget(SoftBudget.of(account, spend))

    def holds(self, is_first: bool, windows: Windows, now_s: int) -> tuple[list[tuple[Counter, int]], list[Correction]]:
        """All that this replica holds, told when Redis is filled again; of the minute what was not told before."""
        facts: list[tuple[Counter, int]] = []
        taken: list[Correction] = []
        for account in self._all():
            if account.windows is not windows:
                account.turn(windows)
            for share in account.shares:
                held = (counter_of(account, share.counter, share.window), max(share.used, share.granted))
                facts += [held] if held[1] else []
            for minute in (account.requests, account.tokens):
                if is_first:
                    minute.mine.used(now_s)
                    minute.tell_all()
                taken += taken_back(account, minute)
        return facts, taken

    def _all(self) -> list[SharedAccount]:
        return cast("list[SharedAccount]", list(self._accounts))


def taken_back(account: SharedAccount, minute: SharedMinute) -> list[Correction]:
    """What the shared counters of this minute do not know yet; it is told now."""
    if minute.limit is None or not minute.back:
        return []
    back, minute.back = minute.back, {}
    counter = counter_of(account, minute.counter, "")
    return [Correction(counter, second, amount) for second, amount in back.items() if amount]


def keep_more(accounts: Iterable[SharedAccount], corrections: Sequence[Correction]) -> None:
    """It is not known whether these were heard: what was more is told again, what was less is not."""
    minutes = {
        counter_of(account, minute.counter, ""): minute
        for account in accounts
        for minute in (account.requests, account.tokens)
    }
    for counter, second, amount in corrections:
        if amount > 0 and counter in minutes:
            minutes[counter].owe(second, amount)


def _not_needed(_others: int) -> None:
    """What the others have open is asked for where it matters."""


def _has_passed(spend: SharedSpend) -> bool:
    return (
        spend.booked_nanousd + spend.others_nanousd > spend.soft_nanousd
        or spend.booked_tokens + spend.others_tokens > spend.soft_tokens
    )
