"""From records of the trail to what people call an action: one row each, newest first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

Record = dict[str, Any]

_ENDS = frozenset({"action.result", "action.refused", "action.decided"})


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One action. `status` is None while it runs."""

    id: str
    ts: str
    agent: str
    user: str | None
    kind: str
    sentence: str
    effect: str | None
    rules: tuple[str, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    status: str | None
    code: str | None
    cost_usd: str | None
    estimated: bool
    latency_ms: float | None


async def rows(records: Iterable[Record], rest: Callable[[str], Awaitable[list[Record]]]) -> list[Row]:
    """The actions of a page of records (newest first); `rest` gives all records of one action.

    A page can end between an action's intent and its result. Each action stands where its newest record stands:
    what a newer page has shown already is left out, and what began on an older page is completed.
    """
    grouped: dict[str, list[Record]] = {}
    for record in records:
        action = record.get("action")
        if action is not None:
            grouped.setdefault(action["id"], []).append(record)
    found: list[Row] = []
    for action_id, of_action in grouped.items():
        types = {record["type"] for record in of_action}
        if not types & _ENDS:
            everything = await rest(action_id)
            if everything and everything[0]["idx"] > of_action[0]["idx"]:
                continue
        elif types == {"action.result"}:
            of_action = await rest(action_id) or of_action
        found.append(row(action_id, of_action))
    return found


def row(action_id: str, records: list[Record]) -> Row:
    """The row of an action from its records, newest first."""
    first, last = records[-1], records[0]
    ended = last["type"] in _ENDS
    result: Record = (last.get("result") or {}) if ended else {}
    decisions = [record["decision"] for record in records if record.get("decision")]
    actor: Record = last.get("actor") or {}
    cost: Record = (last.get("cost") or {}) if ended else {}
    latency_us = result.get("latency_us")
    status = result.get("status") or ("decided" if last["type"] == "action.decided" else None)
    return Row(
        id=action_id,
        ts=first["ts"],
        agent=actor.get("agent") or "unknown",
        user=actor.get("user"),
        kind=last["action"]["kind"],
        sentence=sentence(last),
        effect=decisions[0].get("effect") if decisions else None,
        rules=_longest(decisions, "rules"),
        reasons=_longest(decisions, "reasons"),
        notes=_longest(decisions, "notes"),
        status=status,
        code=result.get("code"),
        cost_usd=cost.get("usd"),
        estimated=bool(cost.get("estimated")),
        latency_ms=latency_us / 1000 if latency_us else None,
    )


def sentence(record: Record) -> str:
    """What the action is, from the record alone (arguments are not in it)."""
    action, model = record["action"], record.get("model") or {}
    kind, tool, server = action["kind"], action.get("tool"), action.get("server")
    where = f" of {server}" if server else ""
    if kind == "model.invoke":
        return f"Ask the model {model.get('requested') or 'unknown'}"
    if kind == "tool.list":
        return f"List the tools of {server or tool or 'all servers'}"
    if kind == "tool.propose":
        return f"Propose to call {tool}{where}"
    if kind == "tool.call":
        return f"Call {tool}{where}"
    return f"{kind} {tool or ''}{where}".strip()


def _longest(decisions: list[Record], name: str) -> tuple[str, ...]:
    # A result repeats the decision without its reasons; the intent has them.
    return max((tuple(one.get(name) or ()) for one in decisions), key=len, default=())
