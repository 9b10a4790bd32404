"""What `data.gateway.decision` must look like, read strictly: an answer that is not exactly this is a deny."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from gateway.actions import Decision, Effect
from gateway.obligations import UNREADABLE_RULE, UnreadableObligation, read_approvals

POLICY_ERROR = "policy_error"

NO_DECISION = "The policy did not give a valid decision, so nothing is allowed. Tell the operator of the gateway."
FAILED = "The policy failed, so nothing is allowed. Tell the operator of the gateway."
BAD_OBLIGATION = (
    "The policy demands something that the gateway cannot do, so nothing is allowed. Tell the operator of the gateway."
)

_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Sentence = Annotated[str, msgspec.Meta(min_length=1, max_length=4000)]


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The result document. An answer without a rule or a reason is not an answer: nobody could act on it."""

    effect: Literal["allow", "deny", "escalate"]
    rules: Annotated[tuple[_Word, ...], msgspec.Meta(min_length=1)]
    reasons: Annotated[tuple[_Sentence, ...], msgspec.Meta(min_length=1)]
    notes: tuple[_Sentence, ...] = ()
    obligations: tuple[dict[str, Any], ...] = ()
    hidden: bool = False


class BadAnswer(ValueError):  # noqa: N818 - said of the answer
    """An answer that cannot be followed: `reason` for the agent, `note` for people, the rules that gave it."""

    def __init__(self, reason: str, note: str, rules: tuple[str, ...] = (POLICY_ERROR,)) -> None:
        super().__init__(note)
        self.reason = reason
        self.note = note
        self.rules = rules


_decode = msgspec.json.Decoder(Answer).decode


def read_answer(result: bytes | str, revision: str, document: bytes, decision_id: str = "") -> Decision:
    """The decision that an engine's result, as JSON, means for `document`.

    Raises BadAnswer for any other shape, and for obligations that the gateway does not know or cannot follow.
    """
    try:
        answer = _decode(result)
    except msgspec.DecodeError as error:
        raise BadAnswer(NO_DECISION, f"data.gateway.decision is not a decision: {error}.") from error
    _check_obligations(answer)
    return Decision(
        effect=Effect(answer.effect),
        rules=answer.rules,
        reasons=answer.reasons,
        notes=answer.notes,
        obligations=answer.obligations,
        revision=revision,
        hidden=answer.hidden and answer.effect == "deny",
        input=document,
        decision_id=decision_id,
    )


def _check_obligations(answer: Answer) -> None:
    if answer.effect == "deny" or not answer.obligations:  # a deny stands, whatever else it demands
        return
    named = ", ".join(answer.rules)
    try:
        read_approvals(answer.obligations)
    except UnreadableObligation as error:
        note = f"An obligation of {named} cannot be read: {error}."
    else:
        if answer.effect == "escalate":
            return
        note = f"{named} allows and demands approval at once; only an escalate may."
    raise BadAnswer(BAD_OBLIGATION, note, (*answer.rules, UNREADABLE_RULE))


def policy_error(
    reason: str,
    revision: str,
    document: bytes,
    *,
    note: str = "",
    rules: tuple[str, ...] = (POLICY_ERROR,),
    decision_id: str = "",
) -> Decision:
    """The deny that every fault of a policy turns into. `note` is for people."""
    return Decision(
        effect=Effect.DENY,
        rules=rules,
        reasons=(reason,),
        notes=(note,) if note else (),
        revision=revision,
        input=document,
        decision_id=decision_id,
    )
