"""An agent may ask about its own cases: the gateway's own tool for that, and the decision that needs no policy."""

from __future__ import annotations

from typing import Any, Final

from gateway.actions import Decision, Effect, ToolTarget

APPROVAL_STATUS: Final = "gateway__approval_status"
OWN_TOOL: Final = ToolTarget(
    server="gateway",
    tool="approval_status",
    server_kind="mcp",
    owner="gateway",
    risk="low",
    effect="read",
    reversible=True,
    idempotent=True,
)
# It needs no grant: it tells what the agent was told before.
OWN_CASE: Final = Decision(effect=Effect.ALLOW, rules=("own_case",), reasons=("An agent may ask about its own cases.",))


def is_own_question(arguments: dict[str, Any] | None) -> bool:
    """Whether these are the arguments of the gateway's own tool: under its name, nothing else passes unseen."""
    if arguments is None or not arguments.keys() <= {"case_id", "wait_s"}:
        return False
    return type(arguments.get("case_id")) is str and type(arguments.get("wait_s", 0)) in (int, float)
