"""A tool call that a model's answer asks the agent to make: the type, and what it is a proposal of.

Arguments are parsed strictly: what is decided on is what the agent will read, so duplicate keys, values that are
not JSON objects and numbers that JSON does not know make a proposal unreadable, and an unreadable one is denied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

from gateway.actions import Action, Decision, Effect, ToolTarget

UNREADABLE_RULE = "proposal_unreadable"
_BAD_ARGUMENTS = "Its arguments are not one JSON object with unique keys; propose it again with valid arguments."
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_SHOWN_NAME = 128


class Proposal(NamedTuple):
    """`arguments` is None where the call could not be read; `fault` then says why, where it is not the arguments.

    `parameters` is the JSON Schema that the agent declared.
    """

    call_id: str
    name: str
    arguments: dict[str, Any] | None
    parameters: dict[str, Any] | None = None
    fault: str | None = None

    @property
    def title(self) -> str:
        """How a sentence names the call."""
        return f"The call of {self.name[:_SHOWN_NAME]}" if self.name else "A call without a name"


class Verdict(NamedTuple):
    """What was decided on a proposal; `release` is true where it may reach the agent.

    `action` is the child action that it is; `case` the one it met, where a person must decide; `waiting` is true until
    its whole answer leaves; `note` says, in place of the policy's reasons, why it was left out.
    """

    proposal: Proposal
    decision: Decision
    release: bool
    action: Action | None = None
    target: ToolTarget | None = None
    case: str | None = None
    waiting: bool = False
    note: str | None = None

    @property
    def text(self) -> str:
        """What the model reads in place of a call that was not released."""
        if self.waiting:
            return (
                f"[{self.proposal.title} was not executed, waiting for approval: case {self.case}."
                " Propose the identical call again later; it is released once a person has approved it.]"
            )
        if self.note is not None:
            return f"[{self.proposal.title} was not executed: {self.note}]"
        reasons = " ".join(self.decision.reasons) or "No policy rule allows it."
        return f"[{self.proposal.title} was not executed: {reasons}]"


def read_arguments(text: str) -> dict[str, Any] | None:
    """Parse a proposal's arguments; None if they are not one unambiguous JSON object. Empty means no arguments."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def executable(tools: Iterable[ToolTarget], proposal: Proposal) -> ToolTarget | None:
    """The tool of ours that a proposal means: by its full name, or by its own name with equal declared parameters."""
    for tool in tools:
        if proposal.name == tool.id:
            return tool
        if proposal.name == tool.tool and proposal.parameters is not None:
            definition = tool.definition or {}
            if definition.get("inputSchema") == proposal.parameters:
                return tool
    return None


def undeclared(name: str) -> ToolTarget:
    """A tool of the agent's own that no manifest describes: nothing about it is known, so the worst is assumed."""
    return ToolTarget(
        server="client",
        tool=name,
        server_kind="client",
        owner="",
        risk="critical",
        effect="destructive",
        declared=False,
    )


def valid_name(name: str) -> bool:
    """Whether a tool may have this name: what every provider and SDK takes, and nothing that looks like another."""
    return _NAME.fullmatch(name) is not None


def unreadable(fault: str | None = None) -> Decision:
    """The decision on a proposal that could not be read; `fault` says why, where it is not its arguments."""
    return Decision(
        effect=Effect.DENY,
        rules=(UNREADABLE_RULE,),
        reasons=(fault or _BAD_ARGUMENTS,),
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if value in (
        float("inf"),
        float("-inf"),
    ):  # 1e400: no JSON value any more, and another parser may read it otherwise
        raise ValueError(f"{text} is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
