"""What callers are told of their case: the code that their client acts on, and words that a model can use."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.actions import Action, Agent, Caller, Kind, Session, Trace
from gateway.approvals.case import Card, Case, Ending, Requirement, State
from gateway.errors import CODES, Refusal
from gateway.waiting import DECIDED, ENDED, answer_of, ended_refusal, waiting_refusal

REASON = "Transfers above 100 need a person."


def case(state: State = State.PENDING, **changed: Any) -> Case:
    agent = Agent(id="payer")
    action = Action(
        id="action-1",
        kind=Kind.TOOL_CALL,
        door="mcp",
        caller=Caller(agent, None, "credential", "key"),
        session=Session("s", "minted"),
        trace=Trace("0" * 32, "0" * 16),
        target="ledger__transfer",
        request_id="r",
        received_ns=0,
    )
    card = Card(
        case="case-1",
        kind=action.kind,
        agent=agent,
        user=None,
        target={},
        definition_digest=None,
        sentence=None,
        arguments={},
        rules=("large",),
        reasons=(REASON,),
        requirement=Requirement(),
    )
    given: dict[str, Any] = {
        "id": "case-1",
        "tenant": "default",
        "kind": action.kind,
        "action": action,
        "definition_digest": None,
        "risk": "high",
        "effect": "write",
        "server": "ledger",
        "tool": "transfer",
        "state": state,
        "version": 1,
        "fence": 0,
        "requirement": Requirement(),
        "card": card,
        "presented_digest": "sha256:x",
        "opened_ns": 0,
        "expires_ns": 3_600_000_000_000,
    }
    return Case(**(given | changed))


def test_every_state_is_either_waited_for_or_an_end() -> None:
    assert ENDED | {State.PENDING, State.APPROVED, State.EXECUTING} == set(State)
    assert set(State) - DECIDED == {State.PENDING}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", [Kind.TOOL_CALL, Kind.TOOL_PROPOSE])
def test_whoever_is_told_to_come_back_hears_when_and_to_which_case(state: State, kind: Kind) -> None:
    refusal = waiting_refusal(case(state, kind=kind))
    assert (refusal.code, refusal.http_status, refusal.retry) == ("approval_required", 409, True)
    assert refusal.retry_after_s is not None
    assert refusal.detail == {"case": "case-1", "state": state.value, "expires": "1970-01-01T01:00:00.000000Z"}
    assert refusal.message.startswith("NOT executed")
    assert "case-1" in refusal.message
    assert (REASON in refusal.message) == (state is State.PENDING)


def test_what_runs_is_told_apart_from_what_waits() -> None:
    assert "Waiting for approval" in waiting_refusal(case()).message
    for state in (State.APPROVED, State.EXECUTING):
        assert "It was approved and is being carried out" in waiting_refusal(case(state)).message


@pytest.mark.parametrize("state", [State.APPROVED, State.DENIED, State.EXPIRED, State.SUCCEEDED])
def test_a_proposal_that_was_decided_in_the_last_moment_is_not_said_to_run(state: State) -> None:
    """Nothing runs here: its agent carries it out, once it has the answer."""
    message = waiting_refusal(case(state, kind=Kind.TOOL_PROPOSE)).message
    assert "carried out" not in message
    assert "Repeat the identical call" in message


@pytest.mark.parametrize("state", sorted(ENDED))
def test_every_end_has_a_code_that_clients_do_not_try_again(state: State) -> None:
    refusal = ended_refusal(case(state, why="Because."))
    assert refusal.code in CODES
    assert not refusal.retry
    assert "case-1" in refusal.message


def test_the_guidance_reaches_the_model() -> None:
    refusal = ended_refusal(case(State.DENIED, why="Split it."))
    assert (refusal.code, refusal.message) == (
        "approval_denied",
        "NOT executed. A person denied it (case case-1). Split it.",
    )
    assert ended_refusal(case(State.DENIED)).message == "NOT executed. A person denied it (case case-1)."


def test_an_unknown_outcome_is_not_to_be_repeated() -> None:
    refusal = ended_refusal(case(State.UNKNOWN))
    assert refusal.code == "outcome_unknown"
    assert "do not repeat it" in refusal.message
    assert "NOT executed" not in refusal.message


def test_what_was_invalidated_says_by_what() -> None:
    refusal = ended_refusal(case(State.INVALIDATED, code="agent_suspended", why="The agent is suspended."))
    assert refusal.code == "agent_suspended"
    assert "The agent is suspended." in refusal.message


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.APPROVED])
def test_a_stored_end_is_the_answer_it_was(state: State) -> None:
    reply = answer_of(case(state), Ending(body=b"{}", headers={"is-error": "true"}))
    assert (reply.status, reply.body, reply.headers) == (200, b"{}", {"is-error": "true"})


def test_a_stored_refusal_is_raised_with_the_case_it_was_of() -> None:
    ending = Ending(code="upstream_failed", message="It broke off.", detail={"dispatched": "no"})
    with pytest.raises(Refusal) as refused:
        answer_of(case(State.FAILED), ending)
    assert (refused.value.code, refused.value.message) == ("upstream_failed", "It broke off.")
    assert refused.value.detail == {"dispatched": "no", "case": "case-1"}


@pytest.mark.parametrize("ending", [None, Ending(body=b"{}")])
@pytest.mark.parametrize("state", sorted(ENDED - {State.SUCCEEDED, State.FAILED}))
def test_an_end_at_which_nothing_is_known_to_be_done_gives_no_result(state: State, ending: Ending | None) -> None:
    with pytest.raises(Refusal) as refused:
        answer_of(case(state), ending)
    assert refused.value.code == ended_refusal(case(state)).code


def test_an_end_that_is_not_kept_any_more_is_told_without_its_result() -> None:
    with pytest.raises(Refusal) as refused:
        answer_of(case(State.SUCCEEDED), None)
    assert refused.value.code == "decided"
