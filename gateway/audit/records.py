"""Builds records from what travels the path. Pure: no clock, no ids, no I/O.

Everything that an agent or an upstream can choose is bounded here, so that a record always fits and always has a
canonical form.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from gateway.actions import (
    Action,
    Cost,
    Decision,
    Kind,
    ModelTarget,
    Reservation,
    Result,
    Status,
    Target,
    ToolTarget,
    usd_text,
)
from gateway.audit.leaf import (
    ActionPart,
    ActorPart,
    CostPart,
    DecisionPart,
    Entry,
    Leaf,
    LimitsPart,
    ModelPart,
    Payload,
    RefsPart,
    ResultPart,
    SessionPart,
    TracePart,
    UsagePart,
)
from gateway.audit.lost import IDEMPOTENT
from gateway.errors import Refusal
from gateway.store.interface import Connection
from gateway.verify.canonical import MAX_INT, encode

_JSON = "application/json"
_SSE = "text/event-stream"
# Together these keep the largest record under its 65,535 bytes, at four bytes a character.
_MAX_TEXT = 256  # characters of one text from outside
_MAX_RULE = 128
_MAX_REASON = 512
_MAX_ITEMS = 16  # rules, reasons, obligations
_MAX_NOTES = 4
_MAX_LABELS = 20
_MAX_OBLIGATION_BYTES = 8192
_DENIALS = {
    "denied_by_policy",
    "approval_required",
    "approval_denied",
    "approval_expired",
    "unknown_tool",
    "model_not_found",
}

_encode = msgspec.json.Encoder(decimal_format="string").encode


def intent(
    action: Action,
    target: Target,
    decision: Decision,
    reservation: Reservation | None = None,
    inspected: tuple[str, ...] = (),
) -> Entry:
    """What is about to be done; it must be durable before any side effect. Carries the decision."""
    leaf = _leaf("action.intent", action, target)
    _put_decision(leaf, decision)
    leaf.obligations = _obligations(decision)
    if reservation is not None:
        leaf.limits = LimitsPart(reservation.levels, usd_text(reservation.nanousd), _int(reservation.tokens))
    if isinstance(target, ToolTarget) and target.idempotent:
        leaf.labels[IDEMPOTENT] = "yes"
    if inspected:
        leaf.labels["inspected"] = _text(",".join(inspected), _MAX_REASON)
    return Entry(leaf, _asked(action, target, decision), None, reservation)


def result(
    action: Action,
    target: Target,
    decision: Decision | None,
    result: Result,
    reservation: Reservation | None = None,
    also: Callable[[Connection], None] | None = None,
    *,
    inspected: tuple[str, ...] = (),
) -> Entry:
    """How an intent ended; each intent takes exactly one. `also` persists the spend in the same transaction."""
    leaf = _leaf("action.result", action, target)
    if decision is not None:
        leaf.decision = DecisionPart(decision.effect, _bounded(decision.rules, _MAX_RULE), revision=decision.revision)
    leaf.cost = _cost(result.cost)
    leaf.result = _result(result)
    if inspected:
        leaf.labels["inspected"] = _text(",".join(inspected), _MAX_REASON)
    payloads: tuple[Payload, ...] = ()
    if result.unkept_bytes:
        leaf.labels["not_kept.response"] = f"{result.unkept_bytes} bytes"
    if result.body is not None:
        media = _SSE if action.stream and not result.body.startswith((b"{", b"[")) else _JSON
        payloads = (Payload("response", media, result.body, _data_class(target)),)
    return Entry(leaf, payloads, also)


def refused(action: Action, target: Target | None, decision: Decision | None, refusal: Refusal) -> Entry:
    """An action that was not begun. Its content is kept only where policy decided on it.

    What fell before the decision (rates, unknown targets) keeps none, so that a flood can't fill the vault.
    """
    leaf = _leaf("action.refused", action, target)
    payloads: tuple[Payload, ...] = ()
    if decision is not None:
        _put_decision(leaf, msgspec.structs.replace(decision, notes=(*refusal.notes, *decision.notes)))
        leaf.obligations = _obligations(decision)
        payloads = _asked(action, target, decision)
    leaf.case = refusal.detail.get("case")
    status = Status.DENIED if refusal.code in _DENIALS else Status.BLOCKED
    leaf.result = ResultPart(status, refusal.code)
    return Entry(leaf, payloads)


def decided(action: Action, target: Target | None, decision: Decision, inspected: tuple[str, ...] = ()) -> Entry:
    """The decision on an action that the gateway does not perform itself: a proposed tool call."""
    leaf = _leaf("action.decided", action, target)
    _put_decision(leaf, decision)
    leaf.obligations = _obligations(decision)
    if inspected:
        leaf.labels["inspected"] = _text(",".join(inspected), _MAX_REASON)
    return Entry(leaf, _asked(action, target, decision))


def requested(action: Action, target: Target, decision: Decision, case: str | None = None) -> Entry:
    """An action that was escalated and now waits for people, as case `case`."""
    entry = decided(action, target, decision)
    entry.leaf.type = "action.requested"
    entry.leaf.case = case
    return entry


class CaseFacts(Protocol):
    """What the records of a case say of it."""

    @property
    def id(self) -> str: ...
    @property
    def action(self) -> Action: ...
    @property
    def server(self) -> str: ...
    @property
    def tool(self) -> str: ...
    @property
    def risk(self) -> str: ...
    @property
    def effect(self) -> str: ...
    @property
    def definition_digest(self) -> str | None: ...


class Named(Protocol):
    """What a transition is called, and what is told of it."""

    @property
    def type(self) -> str: ...
    @property
    def labels(self) -> dict[str, str]: ...


def case(facts: CaseFacts, person: str | None = None) -> Entry:
    """A transition of a case; `name` says which once it was made. The actor is the person, else the agent."""
    leaf = _leaf("case", facts.action, None)
    part = leaf.action
    assert part is not None
    part.server, part.tool = _text(facts.server), _text(facts.tool)
    part.risk, part.effect, part.definition_digest = facts.risk, facts.effect, facts.definition_digest
    leaf.case = facts.id
    if person is not None:
        leaf.labels = {"agent": _text(facts.action.caller.agent.id)}
        leaf.actor = ActorPart(None, None, _text(person), "person")
    return Entry(leaf)


def name(entry: Entry, named: Named) -> None:
    """Call an entry of `case` what the transition was."""
    entry.leaf.type = named.type
    for label, value in list(named.labels.items())[:_MAX_LABELS]:
        entry.leaf.labels[_key(label)] = _text(value, _MAX_REASON)


def event(
    type: str,  # noqa: A002 - the record's own field name
    *,
    tenant: str,
    person: str | None = None,
    subject: dict[str, Any] | None = None,
    labels: dict[str, str] | None = None,
) -> Entry:
    """Anything that is not an action of an agent: `agent.*`, `key.*`, `policy.*`, `person.*`, `audit.*`, ...

    `subject` says what it is about, e.g. {"agent": "reader"}; it stands in the labels as `subject.agent`.
    """
    leaf = Leaf(type=type, tenant=tenant)
    if person is not None:
        leaf.actor = ActorPart(None, None, _text(person), "person")
    given: dict[str, Any] = {**(labels or {}), **{f"subject.{name}": value for name, value in (subject or {}).items()}}
    for name, value in list(given.items())[:_MAX_LABELS]:
        text = value if isinstance(value, str) else encode(plain(value)).decode()
        leaf.labels[_key(name)] = _text(text, _MAX_REASON)
    return Entry(leaf)


# ---------------------------------------------------------------- parts


def _leaf(type_: str, action: Action, target: Target | None) -> Leaf:
    caller, trace = action.caller, action.trace
    agent = caller.agent
    part = ActionPart(action.id, action.kind)
    part.digest = action.digest or None
    model = None
    if isinstance(target, ToolTarget):
        part.server, part.tool = _text(target.server), _text(target.tool)
        part.definition_digest = target.definition_digest
        part.risk, part.effect = target.risk, target.effect
    elif isinstance(target, ModelTarget):
        part.risk = target.risk
        model = ModelPart(_text(action.target), target.model, target.provider)
    elif action.kind == Kind.MODEL_INVOKE:
        model = ModelPart(_text(action.target))
    else:
        part.tool = _text(action.target)
    labels = {"credential": _text(caller.credential_id), "door": action.door}
    if agent.team:
        labels["team"] = _text(agent.team)
    if agent.use_case:
        labels["use_case"] = _text(agent.use_case)
    return Leaf(
        type=type_,
        tenant=agent.tenant,
        env=agent.env,
        actor=ActorPart(agent.id, agent.version, None if caller.user is None else _text(caller.user), caller.authn),
        session=SessionPart(_text(action.session.id), action.session.source),
        trace=TracePart(trace.trace_id, trace.span_id, trace.parent_id, _text(action.request_id)),
        action=part,
        model=model,
        refs=None if action.parent is None else RefsPart(parent=action.parent),
        labels=labels,
    )


def _put_decision(leaf: Leaf, decision: Decision) -> None:
    leaf.decision = _decision(decision)
    if decision.decision_id:  # where a policy server decided: its own log knows it by this
        leaf.labels["decision_id"] = _text(decision.decision_id, _MAX_RULE)


def _decision(decision: Decision) -> DecisionPart:
    return DecisionPart(
        decision.effect,
        _bounded(decision.rules, _MAX_RULE),
        _bounded(decision.reasons, _MAX_REASON),
        _bounded(decision.notes[:_MAX_NOTES], _MAX_TEXT),
        decision.revision,
    )


def _obligations(decision: Decision) -> tuple[dict[str, Any], ...]:
    if not decision.obligations:
        return ()
    kept = tuple(plain(item) for item in decision.obligations[:_MAX_ITEMS])
    if len(encode(kept)) > _MAX_OBLIGATION_BYTES:
        return ({"omitted": f"{len(decision.obligations)} obligations too large for a record: see the policy input"},)
    return kept


def _asked(action: Action, target: Target | None, decision: Decision) -> tuple[Payload, ...]:
    data_class = _data_class(target)
    payloads: list[Payload] = []
    if action.kind == Kind.MODEL_INVOKE and action.body is not None:
        payloads.append(Payload("request", _JSON, action.body, data_class))
    else:
        payloads.append(Payload("arguments", _JSON, _encode(action.arguments), data_class))
    if decision.input:
        payloads.append(Payload("policy_input", _JSON, decision.input, data_class))
    return tuple(payloads)


def _data_class(target: Target | None) -> str | None:
    return ",".join(target.data_classes) if target is not None and target.data_classes else None


def _cost(cost: Cost) -> CostPart:
    return CostPart(usd_text(cost.nanousd), cost.estimated)


def _result(result: Result) -> ResultPart:
    usage = result.cost.usage
    code = None if result.code is None else _text(result.code)
    part = ResultPart(result.status, code, _int(result.latency_us))
    if usage.input_tokens or usage.output_tokens:
        part.usage = UsagePart(
            _int(usage.input_tokens), _int(usage.output_tokens), _int(usage.cached_input_tokens), usage.estimated
        )
    return part


def _int(value: int) -> int:
    return min(max(value, -MAX_INT), MAX_INT)


def _text(text: str, limit: int = _MAX_TEXT) -> str:
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if not text.isprintable():  # lone surrogates have no UTF-8, control characters take six bytes each
        text = "".join(" " if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 else c for c in text)
    return text


def _key(name: str) -> str:
    return _text(name, 64).replace("…", "~").encode("ascii", "replace").decode()


def _bounded(texts: tuple[str, ...], limit: int) -> tuple[str, ...]:
    return tuple(_text(text, limit) for text in texts[:_MAX_ITEMS]) if texts else ()


def plain(value: Any, depth: int = 8) -> Any:
    """`value` brought into the canonical domain: floats and large integers as decimal strings, bounded text."""
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -MAX_INT <= value <= MAX_INT else str(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= MAX_INT else str(Decimal(repr(value)))
    if depth == 0:
        return "…"
    if isinstance(value, dict):
        items = list(value.items())[:_MAX_ITEMS]
        return {_key(str(key)): plain(inner, depth - 1) for key, inner in items}
    if isinstance(value, list | tuple):
        return [plain(inner, depth - 1) for inner in value[:_MAX_ITEMS]]
    return _text(str(value))
