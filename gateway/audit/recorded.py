"""What the log says that rows must not contradict: revocations, roles, suspensions, open cases, and what was spent.

A row's code shows who wrote it, not that it is the newest state: whoever kept an older copy of a row could put it back.
The log can't be rolled back unnoticed, so rows are compared with it at start. What the first records say is kept as a
row of its own (table `recorded`), so that a start reads only what came after.

`Recorded` takes records in order and does no input or output; `recorder.py` reads them and keeps the result.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from gateway.audit.case_check import OPEN_STATES, next_states, states_of_request

_NANOS = 10**9
_MINUTE_NS = 60 * _NANOS
_LONGEST_CASE_NS = 31 * 86_400 * _NANOS  # more than `approvals.ttl_s` may say
_REMEMBERED = 4096  # records of cases that were placed last
_HAS_AN_END = -1  # a key that was replaced; older records do not say when it ends
Waiting = tuple[str, bytes]
"""A record that has no place in the log yet: its ID and its body."""
ROWS_SEALED = "rows"
SEALED = {ROWS_SEALED: "sealed"}
"""The label of `gateway.start` by which a gateway says that rows are authenticated from here on."""

Names = Callable[[int], tuple[str, ...]]
"""The names of the day and the month that a time (nanoseconds) lies in."""
NamesIn = Callable[[str, int], tuple[str, ...]]
"""The same in a time zone; '' is UTC."""


class _Writer(msgspec.Struct):
    id: str = ""


class _Limits(msgspec.Struct):
    levels: tuple[str, ...] = ()


class _Cost(msgspec.Struct):
    usd: str = "0"


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0


class _Result(msgspec.Struct):
    usage: _Usage | None = None


class _Refs(msgspec.Struct):
    intent: str | None = None


class _Leaf(msgspec.Struct):
    """As much of a record as matters here."""

    id: str
    type: str
    ts: str
    tenant: str
    writer: _Writer | None = None
    case: str | None = None
    limits: _Limits | None = None
    cost: _Cost | None = None
    result: _Result | None = None
    refs: _Refs | None = None
    labels: dict[str, str] = {}


class PersonSaid(msgspec.Struct):
    """What the last record of a person says. `removed_ns`: when they were last removed, if ever."""

    is_there: bool = False
    roles: str = ""
    groups: str = ""
    given: str = ""  # digest of who gave what
    removed_ns: int = 0


class AgentSaid(msgspec.Struct):
    """What the records of an agent say. `definition` is JSON, cut short where it was long."""

    is_suspended: bool = False
    definition: str = ""


class CaseSaid(msgspec.Struct):
    """An open case: the states that it may be in, and how many attempts, votes and findings it has."""

    states: frozenset[str]
    digest: str = ""
    attempts: int = 0
    votes: int = 0
    findings: int = 0
    at_ns: int = 0  # of the last record


class _Charge(msgspec.Struct):
    """What the cost of an intent in flight is added to."""

    tenant: str
    levels: tuple[str, ...]
    windows: tuple[str, ...]


class _State(msgspec.Struct):
    """All of it, as it is kept."""

    zone: str
    is_sealed: bool = False
    keys: dict[str, int] = {}  # until when an ended key may work at most (nanoseconds); 0: not at all
    people: dict[str, PersonSaid] = {}
    agents: dict[str, AgentSaid] = {}
    sessions: dict[str, int] = {}  # that were ended, and when
    links: dict[str, int] = {}  # that were used, and when
    cases: dict[str, CaseSaid] = {}
    charges: dict[str, _Charge] = {}  # by the ID of the intent
    open: dict[str, str] = {}  # the intents without a result -> the replica that performs them
    spent: dict[str, list[int]] = {}  # tenant, level, window, replica -> nano-dollars and tokens
    frontier: bytes = b""  # of the tree over the records that it was read from


_decode = msgspec.json.Decoder(_Leaf).decode
decode_state = msgspec.msgpack.Decoder(_State).decode
encode_state = msgspec.msgpack.Encoder().encode


class Recorded:
    """Takes the records in order with `add`. Sums of what was spent are never more than was spent."""

    def __init__(self, zone: str, names: Names, *, shared: bool, state: _State | None = None, size: int = 0) -> None:
        """`zone` is that of the windows' `names`. `shared`: what was spent is kept by replica."""
        self.size = size
        self.state = state or _State(zone)
        self._names = names
        self._shared = shared
        self._minute = ""
        self._windows: tuple[str, ...] = ()
        self._recent: dict[str, None] = {}

    def add(self, body: bytes) -> None:
        """Take in the next record."""
        self.size += 1
        try:
            self._take(_decode(body), body)
        except (msgspec.DecodeError, ValueError, ArithmeticError, KeyError):
            return  # not a record of ours: `gateway audit verify` reports it

    def _take(self, leaf: _Leaf, body: bytes) -> None:
        if leaf.case is not None:
            self._case(leaf.case, msgspec.json.decode(body))
            self._recent[leaf.id] = None
            if len(self._recent) > _REMEMBERED:
                del self._recent[next(iter(self._recent))]
        kind, _, what = leaf.type.partition(".")
        if kind == "action":
            if what == "intent":
                self._intent(leaf)
            elif what == "result":
                self._result(leaf)
        elif kind == "key":
            self._key(what, leaf)
        elif kind == "person":
            self._person(what, leaf)
        elif kind == "agent":
            self._agent(what, leaf.labels)
        elif leaf.type == "gateway.start" and ROWS_SEALED in leaf.labels:
            self.state.is_sealed = True

    def with_waiting(self, waiting: list[Waiting]) -> Recorded:
        """A copy that has taken in records without a place too."""
        state = copy.deepcopy(self.state)
        more = Recorded(state.zone, self._names, shared=self._shared, state=state, size=self.size)
        for _, body in self.not_taken(waiting):
            more.add(body)
        return more

    def not_taken(self, waiting: list[Waiting]) -> list[Waiting]:
        """Without records of cases that were placed after `waiting` was read: votes must not be counted twice."""
        return [one for one in waiting if one[0] not in self._recent]

    def spent(self, windows: tuple[str, ...]) -> dict[tuple[str, str, str, str], tuple[int, int]]:
        """What was spent at least: (tenant, level, window, replica) -> (nano-dollars, tokens)."""
        found = {}
        for key, (nanousd, tokens) in self.state.spent.items():
            tenant, level, window, replica = key.split("\x00")
            if window in windows:
                found[tenant, level, window, replica] = (nanousd, tokens)
        return found

    def forget_old(self, now_ns: int) -> None:
        """Drop what can't matter any more."""
        state, kept = self.state, {*self._names(now_ns), *self._names(now_ns - 86_400 * _NANOS)}
        state.spent = {key: total for key, total in state.spent.items() if key.split("\x00")[2] in kept}
        # A failure that was not sent leaves its case approved, and records do not say so; until then it has expired.
        settled_ns = now_ns - _LONGEST_CASE_NS
        state.cases = {
            case: said for case, said in state.cases.items() if said.states <= OPEN_STATES or said.at_ns > settled_ns
        }
        state.links = {link: at_ns for link, at_ns in state.links.items() if at_ns > now_ns - 7 * 86_400 * _NANOS}

    # ------------------------------------------------------------ registers

    def _key(self, what: str, leaf: _Leaf) -> None:
        told = leaf.labels.get
        if what == "revoked":
            self.state.keys[told("subject.key", "")] = 0
        elif what == "rotated":
            until_ns = int(told("subject.until_ns", _HAS_AN_END))
            for key in filter(None, told("subject.replaces", "").split(",")):
                self.state.keys[key] = until_ns

    def _person(self, what: str, leaf: _Leaf) -> None:
        told, state, at_ns = leaf.labels.get, self.state, nanoseconds(leaf.ts)
        person = state.people.setdefault(told("subject.person", ""), PersonSaid())
        if what in ("added", "changed"):
            person.is_there = True
            person.roles, person.groups = told("subject.roles", ""), told("subject.groups", "")
            person.given = told("subject.given", "")
        elif what == "removed":
            person.is_there, person.removed_ns = False, at_ns
        elif what == "signed_out":
            state.sessions[told("subject.session", "")] = at_ns
        elif what == "session_revoked":
            state.sessions[told("subject.token", "")] = at_ns
        elif what == "signed_in":
            state.links[told("subject.link", "")] = at_ns

    def _agent(self, what: str, labels: dict[str, str]) -> None:
        agent = self.state.agents.setdefault(labels.get("subject.agent", ""), AgentSaid())
        if what in ("suspended", "resumed"):
            agent.is_suspended = what == "suspended"
        agent.definition = labels.get("subject.definition", agent.definition)

    # ------------------------------------------------------------ cases

    def _case(self, case: str, leaf: dict[str, Any]) -> None:
        cases, type_ = self.state.cases, leaf["type"]
        digest = (leaf["action"] or {}).get("digest") or ""
        if type_ == "action.requested":
            cases[case] = CaseSaid(states_of_request(leaf), digest)
        elif case not in cases:
            if type_ == "action.result":  # it began without people, and now needs them
                cases[case] = CaseSaid(frozenset({"unknown"}), digest, attempts=1)
        else:
            said = cases[case]
            said.states = next_states(said.states, leaf)
            said.attempts += type_ == "action.intent"
            said.votes += "vote" in leaf["labels"]
            said.findings += "finding" in leaf["labels"]
            said.at_ns = nanoseconds(leaf["ts"])
            if not said.states & OPEN_STATES:
                del cases[case]

    # ------------------------------------------------------------ spend

    def _intent(self, leaf: _Leaf) -> None:
        self.state.open[leaf.id] = leaf.writer.id if self._shared and leaf.writer is not None else ""
        if leaf.limits is not None and leaf.limits.levels:
            self.state.charges[leaf.id] = _Charge(leaf.tenant, leaf.limits.levels, self._windows_of(leaf.ts))

    def _result(self, leaf: _Leaf) -> None:
        intent = "" if leaf.refs is None else leaf.refs.intent or ""
        self.state.open.pop(intent, None)
        charge = self.state.charges.pop(intent, None)
        usage = None if leaf.result is None else leaf.result.usage
        nanousd = int(Decimal(leaf.cost.usd) * _NANOS) if leaf.cost is not None and leaf.cost.usd != "0" else 0
        tokens = 0 if usage is None else usage.input_tokens + usage.output_tokens
        if charge is None or not (nanousd or tokens):
            return
        replica = ""
        if self._shared and leaf.writer is not None:
            replica = leaf.labels.get("ended_for", leaf.writer.id)
        for level in charge.levels:
            for window in charge.windows:
                total = self.state.spent.setdefault("\x00".join((charge.tenant, level, window, replica)), [0, 0])
                total[0] += nanousd
                total[1] += tokens

    def _windows_of(self, ts: str) -> tuple[str, ...]:
        """Those that surely were open: a reservation is made a little before its record."""
        minute = ts[:16]
        if minute != self._minute:
            now_ns = nanoseconds(f"{minute}:00Z")
            before = self._names(now_ns - _MINUTE_NS)
            self._windows = tuple(name for name in self._names(now_ns) if name in before)
            self._minute = minute
        return self._windows


def nanoseconds(ts: str) -> int:
    """Nanoseconds of a record's time, which has microseconds."""
    try:
        moment = datetime.fromisoformat(ts)
    except (TypeError, ValueError):  # somebody else's
        return 0
    return int(moment.timestamp()) * _NANOS + moment.microsecond * 1000
