"""Which accounts an action has: one for each level that is limited, and always those of its agent and its user."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import cast

from gateway.actions import Action, Caller, Target, ToolTarget
from gateway.limits.account import Account
from gateway.limits.allowance import KINDS, Allowance, AllowanceTable, LevelKind
from gateway.limits.windows import Windows

_FIRST_SWEEP = 1_000
_MOST_CALLERS = 10_000
MOST_SESSIONS = 10_000
"""Whose counters are kept. An agent names its sessions itself, or has one for each request; so where there are more,
what the longest unused one has spent is forgotten. Limits that matter are kept per agent and user too."""

MakeAccount = Callable[[str, str, Allowance], Account]
"""(tenant, level, allowance) -> a new account."""


class Accounts:
    """Every account there is. A level without limits has none, except agents and users, whose spend is told on disk.

    Bounded: accounts in which nothing is used any more are forgotten, since one made anew would be the same.
    """

    def __init__(self, make: MakeAccount, table: AllowanceTable) -> None:
        self._make = make
        self._table = table
        self._accounts: dict[tuple[str, str], Account] = {}
        self._callers: dict[tuple[str, str, str | None, str, str], tuple[Account, ...]] = {}
        self._sessions: OrderedDict[tuple[str, str], Account] = OrderedDict()  # the longest unused one first
        self._sweep_at = _FIRST_SWEEP
        self._limits_sessions = table.limits("session")
        self.limits_targets = table.limits("tool") or table.limits("model")
        """Whether tools or models are limited."""

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def __len__(self) -> int:
        return len(self._accounts)

    def has(self, account: Account) -> bool:
        """Whether it is the one of its level; not where it was idle, was forgotten, and something of it ends late."""
        return self._accounts.get((account.tenant, account.level)) is account

    def of(self, action: Action) -> tuple[Account, ...]:
        """Those of the caller, the widest first. Its tool or model has one of its own: `of_target`."""
        caller = action.caller
        agent = caller.agent
        key = (agent.tenant, agent.id, caller.user, agent.team, agent.use_case)
        accounts = self._callers.get(key)
        if accounts is None:
            accounts = self._of_caller(caller)
            if len(self._callers) >= _MOST_CALLERS:
                self._callers.clear()
            self._callers[key] = accounts
        if self._limits_sessions:
            session = self.find(agent.tenant, "session", action.session.id)
            if session is not None:
                self._sessions.move_to_end((session.tenant, session.level))
                accounts = (*accounts, session)
        return accounts

    def of_target(self, tenant: str, target: Target) -> Account | None:
        """That of a tool or a model; None where it is not limited."""
        return self.find(tenant, "tool" if isinstance(target, ToolTarget) else "model", target.id)

    def find(self, tenant: str, kind: LevelKind, name: str) -> Account | None:
        """The account of a level, made if it is limited; None if it is not, or has no name."""
        account = self._accounts.get((tenant, f"{kind}:{name}"))
        if account is not None and (account.is_limited or kind in ("agent", "user")):
            return account
        if not name or not (kind in ("agent", "user") or self._table.of(kind, name).limits_anything):
            return None
        return self.at(tenant, f"{kind}:{name}")

    def at(self, tenant: str, level: str) -> Account | None:
        """The account of a level, made if need be; None for a level that a later version keeps."""
        account = self._accounts.get((tenant, level))
        if account is None:
            kind, _, name = level.partition(":")
            if kind not in KINDS:
                return None
            account = self._make(tenant, level, self._table.of(kind, name))
            self._accounts[tenant, level] = account
            if kind == "session":
                self._sessions[tenant, level] = account
                self._forget_sessions()
        return account

    def _forget_sessions(self) -> None:
        for _ in range(len(self._sessions) - MOST_SESSIONS):
            key, account = self._sessions.popitem(last=False)
            if account.is_in_use:
                self._sessions[key] = account
            else:
                del self._accounts[key]

    def named(
        self,
        tenant: str,
        team: str,
        use_case: str,
        agent_id: str,
        user: str | None,
        session: str = "",
        target: Target | None = None,
    ) -> tuple[Account, ...]:
        """Those of levels with these names; an empty name is none."""
        levels: tuple[tuple[LevelKind, str], ...] = (
            ("tenant", tenant),
            ("team", team),
            ("use_case", use_case),
            ("agent", agent_id),
            ("user", user or ""),
            ("session", session),
        )
        found = [self.find(tenant, kind, name) for kind, name in levels if name]
        if target is not None:
            found.append(self.of_target(tenant, target))
        return tuple([account for account in found if account is not None])

    def _of_caller(self, caller: Caller) -> tuple[Account, ...]:
        agent = caller.agent
        return self.named(agent.tenant, agent.team, agent.use_case, agent.id, caller.user)

    def reconfigure(self, table: AllowanceTable) -> None:
        """Put new allowances in force; what is used stays used."""
        self._table = table
        self._callers.clear()
        self._limits_sessions = table.limits("session")
        self.limits_targets = table.limits("tool") or table.limits("model")
        for (_, level), account in self._accounts.items():
            kind, _, name = level.partition(":")
            account.allow(table.of(cast("LevelKind", kind), name))

    def sweep(self, now_s: int, windows: Windows) -> None:
        """Forget what is idle, where accounts have become many since the last time. Cheap when they have not."""
        if len(self._accounts) < self._sweep_at:
            return
        idle = [key for key, account in self._accounts.items() if account.is_idle(now_s, windows)]
        for key in idle:
            del self._accounts[key]
            self._sessions.pop(key, None)
        self._callers.clear()
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._accounts))
