"""A case: an action that waits for people, what they are shown of it, and what they said.

The words are the design's; the states are one line with two ends: what people decide, and what became of it.

    pending ──► approved ──► executing ──► succeeded | failed | unknown ──► (people reconcile) succeeded | failed
       ├──► denied | expired | cancelled                        approved ──► pending (more is asked now than was given)
       └──► (also from approved) invalidated

A proposal of a tool that the agent executes itself has no `executing`: it is approved, and `succeeded` once released.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from gateway.actions import Action, Agent, Decision, Kind, ToolTarget
from gateway.store.interface import Connection


class State(StrEnum):
    """Where a case stands."""

    PENDING = "pending"
    APPROVED = "approved"
    EXECUTING = "executing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    INVALIDATED = "invalidated"


# An identical call attaches to a case in one of these, whatever its age; there is at most one for an identity.
OPEN = frozenset({State.PENDING, State.APPROVED, State.EXECUTING, State.UNKNOWN})
# Ends that an identical call is told again while the replay window lasts; the other ends make room for a new case.
TOLD_AGAIN = frozenset({State.SUCCEEDED, State.FAILED, State.DENIED, State.EXPIRED})
# Ends at which nothing was carried out.
NOT_DONE = frozenset({State.DENIED, State.EXPIRED, State.CANCELLED, State.INVALIDATED})


class Choice(StrEnum):
    """What a person may say."""

    APPROVE = "approve"
    DENY = "deny"


class Quorum(msgspec.Struct, frozen=True):
    """How many persons must agree, and how many refuse. `group`: only members of it count; None: every reviewer."""

    approve: int = 1
    deny: int = 1
    group: str | None = None


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes for a case to pass: every quorum, within `ttl_s`. `execute_on`: "decision" or "claim"."""

    quorum: tuple[Quorum, ...] = (Quorum(),)
    ttl_s: int = 4 * 3600
    execute_on: str = "decision"


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What reviewers are shown, and so what their votes are bound to: `presented_digest` is over exactly this."""

    v: int = 1
    nonce: str = ""  # random: the digest stands in records for ever, and amounts and payees are easily tried out
    case: str
    kind: Kind
    agent: Agent
    user: str | None
    target: dict[str, Any]  # id, server, tool, kind, owner, risk, effect, data_classes, reversible, idempotent
    definition_digest: str | None
    sentence: str | None  # the manifest's, with the arguments in it; never the agent's prose
    arguments: dict[str, Any]
    rules: tuple[str, ...]
    reasons: tuple[str, ...]  # why it was held, and what would pass; the agent reads these too
    notes: tuple[str, ...] = ()  # for the reviewers alone
    requirement: Requirement
    claimed_purpose: str | None = None  # what the agent says of it: unproven


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """One person's decision on what they were shown. Never changed, never deleted."""

    id: str
    person: str
    choice: Choice
    presented_digest: str
    reason: str  # for the trail
    guidance: str  # for the agent
    ts_ns: int
    makers: tuple[str, ...] = ()  # who else could have cast it, since they made the session
    counts: bool = True  # False: it was on another card than the one that is shown now


class Comment(msgspec.Struct, frozen=True, kw_only=True):
    """What people say to each other about a case; no agent sees it."""

    id: str
    person: str
    text: str
    ts_ns: int


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one reviewer found out of an attempt whose outcome is unknown. A person's last one counts."""

    id: str
    person: str
    outcome: State  # SUCCEEDED or FAILED
    note: str  # how they know; the agent is told
    fence: int  # of the attempt
    ts_ns: int
    makers: tuple[str, ...] = ()  # as of a vote


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try to carry a case out; there is more than one only where an earlier one certainly did nothing."""

    fence: int
    started_ns: int
    ended_ns: int | None = None
    outcome: str | None = None  # a State's value
    note: str | None = None


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A case as it is stored, opened. `version` grows with every change (the ETag)."""

    id: str
    tenant: str
    kind: Kind  # tool.call or tool.propose
    action: Action  # as it was asked; it is carried out under its own id
    definition_digest: str | None
    risk: str
    effect: str
    server: str
    tool: str
    state: State
    version: int
    fence: int
    requirement: Requirement
    card: Card
    presented_digest: str
    opened_ns: int
    expires_ns: int  # a pending or approved case ends here
    decided_ns: int | None = None
    ended_ns: int | None = None
    told_until_ns: int | None = None  # until then an identical call is told this end again
    code: str | None = None  # of errors.CODES: what waiting callers are refused with, where it ended so
    why: str = ""  # one sentence on its end: the guidance of the reviewers, a policy's reasons, a person's note
    released_to: str | None = None  # id of the model call whose answer a released proposal stood in
    written: int | None = None  # the order in which cases were opened
    votes: int = 0  # how many it was given, on whichever card
    findings: tuple[Finding, ...] = ()  # oldest first

    @property
    def agent_id(self) -> str:
        return self.action.caller.agent.id

    @property
    def target_id(self) -> str:
        return self.action.target

    @property
    def bound(self) -> dict[str, str]:
        """What stands in its records of what people are asked, so that its row can be held against them."""
        requirement = hashlib.sha256(msgspec.json.encode(self.requirement)).hexdigest()
        return {"presented_digest": self.presented_digest, "requirement_digest": f"sha256:{requirement}"}

    @property
    def reconciled_by(self) -> tuple[Quorum, ...]:
        """Who must agree on an unknown outcome: as many as had to approve, and one where nobody had to."""
        return self.requirement.quorum or (Quorum(),)

    @property
    def found(self) -> tuple[Finding, ...]:
        """What each person found last of the attempt whose outcome is unknown, oldest first."""
        last = {one.person: one for one in self.findings if one.fence == self.fence}
        return tuple(one for one in self.findings if last.get(one.person) is one)

    @property
    def outcome(self) -> str:
        """What the decision was: `approved`, whatever became of it then, or the state it ended in."""
        return self.state.value if self.state in NOT_DONE else State.APPROVED.value


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended, sealed for replay: the upstream's reply, or the refusal in its place."""

    body: bytes | None = None
    headers: dict[str, str] = {}
    code: str | None = None
    message: str = ""
    detail: dict[str, str] = {}


class Standing(msgspec.Struct, frozen=True):
    """What a person may do on cases now: reviewers vote; `groups` they belong to."""

    reviewer: bool
    groups: tuple[str, ...] = ()
    given: tuple[tuple[str, tuple[str, ...], int], ...] = ()  # see deciders.Stands


class Asked(msgspec.Struct, frozen=True):
    """What a case is opened for: an action, its target and the decision that escalated it."""

    action: Action
    target: ToolTarget
    decision: Decision


class Met(msgspec.Struct, frozen=True):
    """The case that an action met. `opened`: by this action; `ended_before`: it had ended already."""

    case: Case
    opened: bool
    ended_before: bool


class LostSight(NamedTuple):
    """A case to write. `insert` returns its id, or None where an identical action has an open one already."""

    case: Case
    insert: Callable[[Connection], str | None]


class KeptAnswer(msgspec.Struct, frozen=True):
    """A model's answer that waits for the tool calls it proposes; `id` is the action that paid for it."""

    id: str
    body: bytes
    stream: bool


class Note(msgspec.Struct, frozen=True):
    """What a transition is called in the log, and what stands in its labels."""

    type: str
    labels: dict[str, str] = {}
