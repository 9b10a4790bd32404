"""What waiting callers are told of their case: the refusals, and the stored end of it as an answer."""

from __future__ import annotations

from gateway.actions import Kind, Reply
from gateway.approvals.case import Case, Ending, State
from gateway.clock import rfc3339
from gateway.errors import Refusal

RETRY_AFTER_S = 2
# A caller that is given the outcome has nothing more to wait for in these.
ENDED = frozenset(State) - {State.PENDING, State.APPROVED, State.EXECUTING}
DECIDED = frozenset(State) - {State.PENDING}


def waiting_refusal(case: Case) -> Refusal:
    """The hold is over and nobody has decided, or what was approved still runs; the identical call attaches again."""
    if case.state is State.PENDING:
        reasons = " ".join(case.card.reasons)
        message = f"NOT executed. Waiting for approval: case {case.id}. {reasons} Repeat the identical call later."
    elif case.kind is Kind.TOOL_PROPOSE:  # it was decided just now, or a part of an answer that still waits was
        message = f"NOT executed yet. Its case {case.id} was decided. Repeat the identical call to get the answer."
    else:
        message = (
            f"NOT executed yet. It was approved and is being carried out: case {case.id}. Repeat the identical call to"
            " get its result."
        )
    return _about(case, "approval_required", message, retry_after_s=RETRY_AFTER_S)


def ended_refusal(case: Case) -> Refusal:
    """A case that ended without an answer, in words that the model can use."""
    match case.state:
        case State.DENIED:
            guidance = f" {_ended(case.why)}" if case.why else ""
            message = f"NOT executed. A person denied it (case {case.id}).{guidance}"
            return _about(case, "approval_denied", message)
        case State.EXPIRED:
            why = case.why or "Nobody approved it in time."
            message = f"NOT executed. {why} Don't repeat it without a new reason (case {case.id})."
            return _about(case, "approval_expired", message)
        case State.CANCELLED:
            return _about(
                case, "approval_denied", f"NOT executed. The case {case.id} was cancelled. {case.why}".strip()
            )
        case State.UNKNOWN:
            message = (
                f"It was begun, but it is not known whether it was done (case {case.id}). A person must"
                " find out first; do not repeat it."
            )
            return _about(case, "outcome_unknown", message, why_held=False)
        case State.INVALIDATED:
            message = f"NOT executed. {case.why} (case {case.id})"
            return _about(case, case.code or "denied_by_policy", message, why_held=False)
        case State.SUCCEEDED | State.FAILED if case.code == "decided":  # reconciled
            what = "It was done, but its result was lost" if case.state is State.SUCCEEDED else "It was not done"
            message = f"{what}; a person has found out (case {case.id}): {case.why}"
            return _about(case, "decided", message, why_held=False)
        case _:
            note = f" {case.why}" if case.why else ""
            message = f"The case {case.id} has ended as {case.state}.{note}"
            return _about(case, "decided", message, why_held=False)


def answer_of(case: Case, ending: Ending | None) -> Reply:
    """The stored end of a case as the reply it was. Raises the refusal that stood in its place."""
    if case.state not in (State.SUCCEEDED, State.FAILED, State.APPROVED) or ending is None:
        raise ended_refusal(case)
    if ending.body is not None:
        return Reply(body=ending.body, headers=ending.headers)
    if ending.code is not None:
        raise Refusal(ending.code, ending.message, detail={**ending.detail, "case": case.id})
    raise ended_refusal(case)


def _ended(text: str) -> str:
    """What a person wrote, as a sentence that others may follow."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", ":", ";")) else f"{text}."


def _about(case: Case, code: str, message: str, *, retry_after_s: int | None = None, why_held: bool = True) -> Refusal:
    """`why_held`: with the rules that asked for people, and what would have passed without."""
    return Refusal(
        code,
        message,
        rules=case.card.rules if why_held else (),
        reasons=case.card.reasons if why_held else (),
        retry_after_s=retry_after_s,
        detail={"case": case.id, "state": case.state.value, "expires": rfc3339(case.expires_ns)},
    )
