"""Arguments of a tool call against the tool's own `inputSchema` (JSON Schema; 2020-12 where it does not say).

A server's schema is a stranger's text: no reference leaves it, the steps of a check are bounded before it begins
(`schema_cost`), and one that does not compile refuses the call. What an agent is told names the argument and what would
pass, not its value.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

import jsonschema_rs

from gateway.actions import Action, Kind, Target, ToolTarget
from gateway.errors import Refusal
from gateway.schema_cost import MAX_UNITS, Costs, Unusable

INPUT_SCHEMA = "input_schema"

_KINDS = (Kind.TOOL_CALL, Kind.TOOL_PROPOSE)
_MAX_CACHED = 1024
_MAX_TOLD = 3  # violations in one message
# Arguments with more values than this are told that they do not fit, not where: finding that out copies the whole of
# what does not fit, once for each place, and holds the event loop meanwhile.
_MAX_SEARCHED = 200
_MAX_SEARCHED_CHARS = 20_000
# What does not fit is searched for only where that takes few steps: listing it follows every branch.
_MAX_SEARCHED_UNITS = 20_000
_MAX_MESSAGE = 300  # characters for each
# Steps that one pattern may take on one value, and bytes that it may compile to.
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=2_000, size_limit=1_000_000)


class _Check(NamedTuple):
    """A schema, compiled, and what checking by it costs."""

    validator: jsonschema_rs.Validator
    costs: Costs


class Guards:
    """All guards on input. Validators are kept by the digest of the definition that they come from."""

    def __init__(self) -> None:
        self._checks: dict[str, _Check | Refusal] = {}

    def inspect_input(self, action: Action, target: Target) -> tuple[str, ...]:
        """The names of the guards that inspected the action; none where there is nothing to inspect it by.

        Raises Refusal: `malformed` where arguments do not fit the schema, `upstream_failed` where the schema itself
        cannot be used.
        """
        if not isinstance(target, ToolTarget) or action.kind not in _KINDS or target.definition is None:
            return ()
        schema = target.definition.get("inputSchema")
        if schema is None or schema in ({}, True):
            return ()  # it says nothing, so nothing would be inspected
        validator, costs = self._check(target, schema)
        units = _units(costs, action.arguments, target)
        if units > MAX_UNITS:
            raise _too_much(target)
        if not _is_valid(validator, action.arguments, target):
            raise _misfit(validator, action.arguments, target, units)
        return (INPUT_SCHEMA,)

    def _check(self, target: ToolTarget, schema: Any) -> _Check:
        digest = target.definition_digest
        found = self._checks.get(digest) if digest is not None else None
        if found is None:
            found = _compile(target, schema)
            if digest is not None:
                while len(self._checks) >= _MAX_CACHED:
                    del self._checks[next(iter(self._checks))]
                self._checks[digest] = found
        if isinstance(found, Refusal):
            raise _unusable(target, found.detail["fault"])
        return found


def _compile(target: ToolTarget, schema: Any) -> _Check | Refusal:
    if not isinstance(schema, dict):
        return _unusable(target, "it is not an object")
    try:
        costs = Costs(schema)
        validator = jsonschema_rs.validator_for(
            costs.bounded,
            validate_formats=False,  # annotations in 2020-12, and servers use formats of their own
            pattern_options=_PATTERNS,
            mask="it",
            offline=True,
        )
        return _Check(validator, costs)
    except Unusable as fault:
        return _unusable(target, str(fault))
    except (ValueError, TypeError, RecursionError) as error:
        return _unusable(target, _short(str(getattr(error, "message", error))))


def _units(costs: Costs, arguments: dict[str, Any], target: ToolTarget) -> int:
    try:
        return costs.units(arguments)
    except TypeError:
        raise _unreadable(target) from None


def _is_valid(validator: jsonschema_rs.Validator, arguments: dict[str, Any], target: ToolTarget) -> bool:
    try:
        return validator.is_valid(arguments)
    except (ValueError, TypeError, RecursionError):
        raise _unreadable(target) from None


def _misfit(validator: jsonschema_rs.Validator, arguments: dict[str, Any], target: ToolTarget, units: int) -> Refusal:
    if units > _MAX_SEARCHED_UNITS or not _small(arguments):
        return Refusal(
            "malformed",
            f"The arguments do not fit {target.id}, and are too many to say where; compare them with its inputSchema.",
            detail={"guard": INPUT_SCHEMA},
        )
    try:
        told = [_sentence(error) for error in islice(validator.iter_errors(arguments), _MAX_TOLD)]
    except (ValueError, TypeError, RecursionError):
        return _unreadable(target)
    sentence = " ".join(told)
    return Refusal(
        "malformed",
        f"The arguments do not fit {target.id}: {sentence} Correct them and call again.",
        reasons=tuple(told),
        detail={"guard": INPUT_SCHEMA},
    )


def _too_much(target: ToolTarget) -> Refusal:
    return Refusal(
        "malformed",
        f"The arguments of {target.id} have more values, or are nested deeper, than can be checked by its inputSchema"
        " at once; send fewer in one call.",
        detail={"guard": INPUT_SCHEMA},
    )


def _small(arguments: dict[str, Any]) -> bool:
    """Whether looking for what is wrong is quick: few values, short texts."""
    left, chars, queue = _MAX_SEARCHED, _MAX_SEARCHED_CHARS, [arguments]
    while queue:
        value: Any = queue.pop()
        if isinstance(value, dict):
            chars -= sum(map(len, value))
            inner: Any = value.values()
        elif isinstance(value, list):
            inner = value
        else:
            chars -= len(value) if isinstance(value, str) else 1
            continue
        left -= len(value)
        if left < 0:
            return False
        queue.extend(inner)
    return chars >= 0


def _sentence(error: jsonschema_rs.ValidationError) -> str:
    path = ".".join(str(step) for step in error.instance_path)
    return _short(f"`{path}`: {error.message}" if path else error.message) + "."


def _short(text: str) -> str:
    first = text.split("\n\nFailed validating", 1)[0].strip().rstrip(".")
    return first if len(first) <= _MAX_MESSAGE else first[:_MAX_MESSAGE] + " ..."


def _unreadable(target: ToolTarget) -> Refusal:
    return Refusal("malformed", f"The arguments of {target.id} are not plain JSON. Send a JSON object.")


def _unusable(target: ToolTarget, fault: str) -> Refusal:
    return Refusal(
        "upstream_failed",
        f"{target.id} is not called: the input schema that its server sent cannot be used ({fault}). "
        "The tool's owner must correct it.",
        detail={"guard": INPUT_SCHEMA, "fault": fault, "dispatched": "no"},
    )
