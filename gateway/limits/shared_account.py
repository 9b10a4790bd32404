"""An account of which a replica has a part: its ceilings are what it was granted, not what the limit is."""

from __future__ import annotations

from gateway.limits.account import Account, Spend
from gateway.limits.allowance import Allowance
from gateway.limits.leases import Share, SharedMinute
from gateway.limits.windows import Window, Windows


class SharedSpend(Spend):
    """A window's spend of this replica, and what the others have booked in it, when last told."""

    __slots__ = ("others_nanousd", "others_tokens")

    def __init__(self, kind: Window, window: str) -> None:
        super().__init__(kind, window)
        self.others_nanousd = 0
        self.others_tokens = 0


class SharedAccount(Account):
    """One level of one tenant, as one replica has it. Only `RedisLimits` touches it."""

    __slots__ = ("active", "is_known", "shares")

    requests: SharedMinute  # type: ignore[assignment]
    tokens: SharedMinute  # type: ignore[assignment]
    spends: tuple[SharedSpend, ...]

    def __init__(self, tenant: str, level: str, allowance: Allowance, windows: Windows) -> None:
        self.shares: list[Share] = []
        """One for each counter that is limited and granted."""
        self.active = False
        """Used since the last tick."""
        self.is_known = False
        """Whether it was ever heard what the others hold."""
        super().__init__(tenant, level, allowance, windows)

    def _begin(self) -> None:
        super()._begin()
        self.requests = SharedMinute("requests_per_minute")
        self.tokens = SharedMinute("tokens_per_minute")

    def allow(self, allowance: Allowance) -> None:
        """See `Account.allow`. What is granted stays granted; a limit that is new has to be asked for."""
        had = self._granted()
        super().allow(allowance)
        self._share(had)
        alone = allowance.on_unavailable == "allow"
        self.requests.limited(allowance.requests_per_minute, alone=alone)
        self.tokens.limited(allowance.tokens_per_minute, alone=alone)

    def turn(self, windows: Windows) -> None:
        """See `Account.turn`. A new window has to be asked for."""
        had = self._granted()
        super().turn(windows)
        self._share(had)

    def _spend(self, kind: Window) -> SharedSpend:
        return SharedSpend(kind, self.windows.name(kind))

    def _granted(self) -> dict[tuple[int, str], tuple[Share, int]]:
        return {(id(share.owner), share.granted_name): (share, share.granted) for share in self.shares}

    def _share(self, had: dict[tuple[int, str], tuple[Share, int]]) -> None:
        """Put what is granted where the limits stand."""
        allowance = self.allowance
        found: list[tuple[Share, int | None, bool]] = [
            (
                Share("concurrency", "", self, "in_flight", "concurrency"),
                allowance.concurrency,
                allowance.on_unavailable == "allow",
            )
        ]
        for spend in self.spends:
            nanousd, tokens = allowance.ceiling(spend.kind)
            alone = allowance.allows_alone(spend.kind)
            found.append((Share("nanousd", spend.window, spend, "nanousd", "max_nanousd"), nanousd, alone))
            found.append((Share("tokens", spend.window, spend, "tokens", "max_tokens"), tokens, alone))
        self.shares = []
        for share, limit, alone in found:
            if limit is None:
                continue
            before, granted = had.get((id(share.owner), share.granted_name), (share, 0))
            before.limit, before.alone, before.refused_at = limit, alone, -1
            before.granted = min(granted, limit)
            self.shares.append(before)

    def is_idle(self, now_s: int, windows: Windows) -> bool:
        """See `Account.is_idle`. What is granted, or was not told yet, is something too."""
        if self.in_flight or self.active or self.requests.back or self.tokens.back or self.refused.used(now_s):
            return False
        if self.requests.ahead or self.tokens.ahead:
            return False
        if self.requests.mine.used(now_s) or self.tokens.mine.used(now_s) or any(one.granted for one in self.shares):
            return False
        return all(spend.is_empty or spend.window != windows.name(spend.kind) for spend in self.spends)

    # ------------------------------------------------------------ telling

    def requests_used(self, now_s: int) -> int:
        """See `Account.requests_used`: by all replicas, as far as this one knows."""
        return self.requests.all_used(now_s)

    def tokens_used(self, now_s: int) -> int:
        """See `Account.tokens_used`: by all replicas, as far as this one knows."""
        return self.tokens.all_used(now_s)

    @property
    def others_in_flight(self) -> int:
        """See `Account.others_in_flight`."""
        return next((share.others for share in self.shares if share.owner is self), 0)

    def others_spend(self, spend: Spend, *, hard: bool) -> tuple[int, int]:
        """See `Account.others_spend`."""
        if not hard:
            assert isinstance(spend, SharedSpend)
            return spend.others_nanousd, spend.others_tokens
        others = {share.counter: share.others for share in self.shares if share.owner is spend}
        return others.get("nanousd", 0), others.get("tokens", 0)
