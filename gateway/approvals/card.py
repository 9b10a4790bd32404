"""The card: what reviewers are shown of a case, and the digest that binds their votes to exactly this."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.actions import Action, Decision, ToolTarget
from gateway.approvals.case import Card, Requirement
from gateway.errors import Refusal
from gateway.protocols.canonical_json import canonical_json

Sentence = Callable[[ToolTarget, dict[str, Any]], str | None]


def card_of(
    case_id: str,
    action: Action,
    target: ToolTarget,
    decision: Decision,
    asked: Requirement,
    sentence: Sentence,
    nonce: str,
) -> Card:
    """What people see of an action that was escalated. `nonce` is random, so that nobody guesses it by its digest."""
    return Card(
        nonce=nonce,
        case=case_id,
        kind=action.kind,
        agent=action.caller.agent,
        user=action.caller.user,
        target={
            "id": target.id,
            "server": target.server,
            "tool": target.tool,
            "kind": target.server_kind,
            "owner": target.owner,
            "risk": target.risk,
            "effect": target.effect,
            "data_classes": list(target.data_classes),
            "reversible": target.reversible,
            "idempotent": target.idempotent,
            "declared": target.declared,
            "arguments": {name: msgspec.to_builtins(kind) for name, kind in target.arguments.items()},
        },
        definition_digest=target.definition_digest,
        sentence=sentence(target, action.arguments),
        arguments=action.arguments,
        rules=decision.rules,
        reasons=decision.reasons,
        notes=decision.notes,
        requirement=asked,
        claimed_purpose=action.claimed.purpose,
    )


def presented_digest(card: Card) -> str:
    """`sha256:` and the hex of SHA-256 over the card's canonical JSON. Raises Refusal(malformed).

    A card without notes has the digest that it had before there were notes.
    """
    shown: dict[str, Any] = msgspec.to_builtins(card)
    if not card.notes:
        del shown["notes"]
    try:
        packed = canonical_json(shown)
    except (ValueError, TypeError) as error:
        raise Refusal(
            "malformed",
            "No vote could be bound to the arguments, because they hold NaN, an infinity or half of a character.",
        ) from error
    return f"sha256:{hashlib.sha256(packed).hexdigest()}"
