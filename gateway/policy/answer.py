"""What `data.gateway.decision` must look like, read strictly: an answer that is not exactly this is a deny."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from gateway.actions import Decision, Effect

POLICY_ERROR = "policy_error"

_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Sentence = Annotated[str, msgspec.Meta(min_length=1, max_length=4000)]


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The result document. An answer without a rule or a reason is not an answer: nobody could act on it."""

    effect: Literal["allow", "deny", "escalate"]
    rules: Annotated[tuple[_Word, ...], msgspec.Meta(min_length=1)]
    reasons: Annotated[tuple[_Sentence, ...], msgspec.Meta(min_length=1)]
    obligations: tuple[dict[str, Any], ...] = ()
    hidden: bool = False


_decode = msgspec.json.Decoder(Answer).decode


def read_answer(result: bytes | str, revision: str, document: bytes, decision_id: str = "") -> Decision:
    """The decision that an engine's result, as JSON, means for `document`. Raises `msgspec.DecodeError` for any other
    shape."""
    answer = _decode(result)
    return Decision(
        effect=Effect(answer.effect),
        rules=answer.rules,
        reasons=answer.reasons,
        obligations=answer.obligations,
        revision=revision,
        hidden=answer.hidden and answer.effect == "deny",
        input=document,
        decision_id=decision_id,
    )


def policy_error(reason: str, revision: str, document: bytes, decision_id: str = "") -> Decision:
    """The deny that every fault of a policy turns into."""
    return Decision(
        effect=Effect.DENY,
        rules=(POLICY_ERROR,),
        reasons=(reason,),
        revision=revision,
        input=document,
        decision_id=decision_id,
    )
