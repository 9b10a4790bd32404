"""What decisions and upstream failures turn into: refusals for the caller, results and costs for the record.

Costs err upwards only. Where the provider counted nothing that can be believed, what was reserved is charged; where it
counted something that has no price, that is charged at the dearest rate. Both are marked as estimated.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from gateway.actions import (
    Action,
    Agent,
    AgentStatus,
    Cost,
    Decision,
    Effect,
    Kind,
    ModelTarget,
    Reply,
    Reservation,
    Result,
    Status,
    Target,
    ToolTarget,
    Usage,
    cost_of,
)
from gateway.errors import NO_SUCH_MODEL, Refusal
from gateway.pricing import OPEN_TIERS, PLAIN_TIERS, UsageDetails


def active_or_refuse(agent_of: Callable[[str], Agent | None], action: Action) -> Agent:
    """The agent of an action as it is registered now. Raises `agent_suspended`."""
    agent = agent_of(action.caller.agent.id)
    if agent is None or agent.status is not AgentStatus.ACTIVE:
        raise Refusal(
            "agent_suspended",
            f"The agent {action.caller.agent.id} is suspended; ask its operator to resume it.",
        )
    return agent


def allow_or_refuse(action: Action, decision: Decision) -> None:
    """Go on only if the decision is allow. Raises `denied_by_policy`, `unknown_tool`, `model_not_found`."""
    if decision.effect is not Effect.ALLOW:
        raise refusal_of(action, decision)


def refusal_of(action: Action, decision: Decision) -> Refusal:
    """The refusal that a deny turns into, and an escalate of what can't wait for a person."""
    reasons = " ".join(decision.reasons) or "No policy rule allows it."
    if decision.effect is Effect.ESCALATE:
        reasons = f"A person would have to approve it, and only tool calls can wait for that. {reasons}"
    if decision.hidden and action.kind is Kind.MODEL_INVOKE:  # in the very words of a model that does not exist
        return Refusal("model_not_found", NO_SUCH_MODEL)
    if decision.hidden:
        return Refusal("unknown_tool", f"Unknown tool: {action.target}", rules=decision.rules, reasons=decision.reasons)
    return Refusal(
        "denied_by_policy",
        f"Policy denies {action.target}: {reasons}",
        rules=decision.rules,
        reasons=decision.reasons,
    )


def worth_a_record(refusal: Refusal) -> bool:
    """A flood from one agent is recorded by its beginning and then every hundredth, so that it can't fill the disk."""
    if refusal.code != "rate_limited":
        return True
    count = int(refusal.detail.get("refused_this_minute", "1"))
    return count <= 10 or count % 100 == 0


def upper_bound(held: Reservation) -> Cost:
    """All that was reserved: never below the truth, and marked as an estimate."""
    usage = Usage(input_tokens=held.input_tokens, output_tokens=held.max_output_tokens, estimated=True)
    return Cost(nanousd=held.nanousd, usage=usage, estimated=True)


def cost_of_reply(target: Target, reply: Reply, held: Reservation) -> Cost:
    """The cost of a complete answer."""
    return _cost(target, reply.usage, held) if isinstance(target, ModelTarget) else Cost()


def cost_of_stream(target: Target, usage: Usage | None, held: Reservation) -> Cost:
    """The cost of a stream that ended."""
    return _cost(target, usage, held) if isinstance(target, ModelTarget) else upper_bound(held)


def _cost(target: ModelTarget, usage: Usage | None, held: Reservation) -> Cost:
    """What the provider counted, priced; what was reserved where it counted nothing that can be believed.

    What the request asked for and the answer does not mention is charged as it was asked for, as an estimate.
    """
    if usage is None:
        return upper_bound(held)
    cost = cost_of(target, usage)
    if not held.is_plain:
        cost = _dearer(target, cost, held)
    return cost if not cost.estimated or cost.is_counted else _at_least(held, cost)


def _dearer(target: ModelTarget, cost: Cost, held: Reservation) -> Cost:
    """The cost with the service tier and the provider's tools that were asked for, where the answer names none."""
    details = cost.usage.details or UsageDetails()
    asked, is_estimated = details, cost.estimated or held.has_unknown_price
    if not details.tier and held.tier not in OPEN_TIERS | PLAIN_TIERS:
        asked, is_estimated = replace(asked, tier=held.tier), True
    if not details.server_calls and held.server_calls:
        asked, is_estimated = replace(asked, server_calls=held.server_calls), True
    if asked is not details:
        other = cost_of(target, replace(cost.usage, details=asked))
        counted = cost.is_counted_or_exact and other.is_counted_or_exact
        dearer = max(cost, other, key=lambda one: one.nanousd)
        return replace(dearer, estimated=True, is_counted=counted)
    return replace(cost, estimated=is_estimated, is_counted=is_estimated and cost.is_counted_or_exact)


def _at_least(held: Reservation, cost: Cost) -> Cost:
    """An estimate that may be below the truth: no less than what was reserved."""
    usage = cost.usage
    if usage.details is not None and usage.details.is_doubtful:
        usage = replace(
            usage,
            input_tokens=max(usage.input_tokens, held.input_tokens),
            output_tokens=max(usage.output_tokens, held.max_output_tokens),
            estimated=True,
        )
    return Cost(nanousd=max(cost.nanousd, held.nanousd), usage=usage, estimated=True, is_counted=True)


def needs_finding_out(target: Target, result: Result) -> bool:
    """Whether a person must find out what became of a call before it may be made again."""
    if not isinstance(target, ToolTarget) or target.effect == "read" or target.idempotent:
        return False
    return result.status is Status.UNKNOWN


def status_of(reply: Reply) -> Status:
    """A tool's own error is a failed action that was performed; `tool_error` says so."""
    return Status.FAILED if reply.headers.get("is-error") == "true" else Status.SUCCEEDED


def result_of_failure(target: Target, refusal: Refusal, held: Reservation, so_far: Result) -> Result:
    """What a failed upstream call leaves: an effect that may have happened is `unknown`, not `failed`."""
    if refusal.code == "approval_required":  # answered and paid for; what it proposes waits for a person
        return Result(status=Status.SUCCEEDED, code=refusal.code, cost=so_far.cost, body=so_far.body)
    if so_far.status is not Status.UNKNOWN:  # it was performed; the answer was withheld afterwards
        return Result(status=Status.FAILED, code=refusal.code, cost=so_far.cost, body=so_far.body)
    reached = refusal.detail.get("dispatched", "unknown") != "no"
    if isinstance(target, ToolTarget):
        unsure = reached and target.effect != "read" and refusal.detail.get("refused") != "yes"
        return Result(status=Status.UNKNOWN if unsure else Status.FAILED, code=refusal.code)
    # A provider that refused (4xx, 5xx) did no work that is billed; one that fell silent may have.
    silent = reached and refusal.detail.get("answered") != "yes"
    return Result(status=Status.FAILED, code=refusal.code, cost=upper_bound(held) if silent else Cost())
