"""A tool call that a model's answer asks the agent to make: the type, and what it is a proposal of.

Arguments are parsed strictly: what is decided on is what the agent will read, so duplicate keys, values that are not
JSON objects, numbers that a double does not hold exactly and halves of characters make a proposal unreadable, and an
unreadable one is denied. Integers keep their digits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

from gateway.actions import Action, Decision, Effect, ToolTarget
from gateway.protocols.json_limits import MAX_FLOATS, MAX_VALUES, count_values
from gateway.protocols.json_numbers import exact_float

UNREADABLE_RULE = "proposal_unreadable"
_SHOWN_NAME = 128
_UNREADABLE = (
    "Its arguments are not one JSON object with unique keys and exact numbers; propose it again with valid arguments."
)
# As at the doors of tools: more than this, no tool takes in one call.
MAX_ARGUMENT_BYTES = 1024 * 1024
MAX_DEPTH = 100  # as deep as policies read
MAX_INTEGER_CHARS = 4_300  # more take quadratic time to read
JSON_SPACE = " \t\r\n"


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
    if not text.strip(JSON_SPACE):
        return {}
    try:
        encoded = text.encode()
        if len(encoded) > MAX_ARGUMENT_BYTES or count_values(encoded) > MAX_VALUES:
            return None
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_Floats().read,
            parse_int=None if len(text) <= MAX_INTEGER_CHARS and "-0" not in text else _bounded_integer,
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half of a character, spelt as an escape
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not _is_deep(value, text) else None


def reads_exactly(data: bytes) -> bool:
    """Whether every reader gets the same of a JSON text: no inexact number, no key twice, no half of a character."""
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_Floats().read)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


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


def unreadable(fault: str | None = None) -> Decision:
    """The decision on a proposal that could not be read; `fault` says why, where it is not its arguments."""
    return Decision(
        effect=Effect.DENY,
        rules=(UNREADABLE_RULE,),
        reasons=(fault or _UNREADABLE,),
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


class _Floats:
    """Reads the numbers with a fraction or an exponent of one text."""

    def __init__(self) -> None:
        self._left = MAX_FLOATS

    def read(self, text: str) -> float:
        self._left -= 1
        number = exact_float(text)
        if number is None or self._left < 0:
            raise ValueError("a number that no double is, or too many")
        return number


def _bounded_integer(text: str) -> int | float:
    if text == "-0":
        return -0.0  # as every reader with doubles has it; an integer would lose the sign
    if len(text) > MAX_INTEGER_CHARS:
        raise ValueError("an integer of too many digits")
    return int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_deep(value: Any, text: str) -> bool:
    """Whether `value`, read from `text`, is nested deeper than MAX_DEPTH."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _values(outer) if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True


def _values(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container
