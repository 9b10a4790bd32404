"""Arguments of a tool call: one spelling for each key (spelling.py), and the tool's own `inputSchema` (JSON Schema;
2020-12 where it does not say).

A server's schema is untrusted text: no reference leaves it, the steps of a check are bounded before it begins
(protocols/schema_cost.py), and one that does not compile refuses the call. A refusal names the argument and what would
pass, never its value.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec

from gateway.actions import Action, Kind, Target, ToolTarget
from gateway.errors import Refusal
from gateway.guards.schema_keys import SchemaKeys, UnreadableSchemaError
from gateway.guards.spelling import check_proposal, keys_of, respelling_in
from gateway.protocols.schema_cost import MAX_UNITS, Costs, Unusable

INPUT_SCHEMA = "input_schema"
ARGUMENT_NAMES = "argument_names"

_KINDS = (Kind.TOOL_CALL, Kind.TOOL_PROPOSE)
_MAX_CACHED = 1024
_LARGE_BYTES = 16 * 1024
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


class _Schema(NamedTuple):
    """A tool's schema, ready to inspect by. `check`: None where it says nothing, a clause where it is unusable."""

    check: _Check | str | None
    keys: SchemaKeys


class Guards:
    """All guards on input. What is made of a schema is kept by the digest of the definition that it comes from."""

    def __init__(self) -> None:
        self._schemas: dict[str, _Schema] = {}

    def inspect_input(self, action: Action, target: Target) -> tuple[str, ...]:
        """The names of the guards that inspected the action; none where there is nothing to inspect.

        Raises Refusal: `malformed` where arguments do not fit the schema or are spelt otherwise, `upstream_failed`
        where the schema itself cannot be used.
        """
        if not isinstance(target, ToolTarget) or action.kind not in _KINDS:
            return ()
        schema = self._schema(target)
        if schema.check is not None:
            _check_schema(schema.check, action.arguments, target)
        _check_names(action, target, schema.keys)
        return (ARGUMENT_NAMES,) if schema.check is None else (INPUT_SCHEMA, ARGUMENT_NAMES)

    def inspect_proposal(
        self, arguments: dict[str, Any], declared: dict[str, Any] | None, target: ToolTarget
    ) -> str | None:
        """What is wrong with the keys of a call that a model proposes, as a sentence; None where nothing is.

        `declared` is the JSON Schema that the agent declared for the tool.
        """
        return check_proposal(arguments, declared, target)

    def _schema(self, target: ToolTarget) -> _Schema:
        digest = target.definition_digest
        found = self._schemas.get(digest) if digest is not None else None
        if found is None:
            found = _ready((target.definition or {}).get("inputSchema"))
            if digest is not None:
                self.keep({digest: found})
        return found

    def prepare(self, definitions: Mapping[str, dict[str, Any]]) -> dict[str, _Schema]:
        """What `keep` wants of definitions by their digest, for a thread to work out: large schemas take up to 200 ms.

        Small ones are left out; they are compiled when their tool is called.
        """
        new = [(digest, raw) for digest, raw in definitions.items() if digest not in self._schemas]
        return {digest: _ready(raw.get("inputSchema")) for digest, raw in new if _is_large(raw)}

    def keep(self, prepared: Mapping[str, _Schema]) -> None:
        """Take in what `prepare` gave, by digest."""
        for digest, schema in prepared.items():
            while len(self._schemas) >= _MAX_CACHED:
                del self._schemas[next(iter(self._schemas))]
            self._schemas[digest] = schema


def _ready(schema: Any) -> _Schema:
    says_nothing = schema is None or schema in ({}, True)
    return _Schema(None if says_nothing else _compile(schema), keys_of(schema))


def _is_large(definition: dict[str, Any]) -> bool:
    return len(msgspec.json.encode(definition)) > _LARGE_BYTES


def _check_names(action: Action, target: ToolTarget, keys: SchemaKeys) -> None:
    try:
        place = keys.root()
        own = () if place is None else place.declared
        fault = respelling_in(action.arguments, [place], target.arguments, own)
    except UnreadableSchemaError as error:
        raise _unusable(target, str(error)) from None
    if fault is not None:
        raise Refusal(
            "malformed",
            f"The arguments do not fit {target.id}: {fault} Correct them and call again.",
            reasons=(fault,),
            detail={"guard": ARGUMENT_NAMES},
        )


def _check_schema(check: _Check | str, arguments: dict[str, Any], target: ToolTarget) -> None:
    if isinstance(check, str):
        raise _unusable(target, check)
    units = _units(check.costs, arguments, target)
    if units > MAX_UNITS:
        raise _too_much(target)
    if not _is_valid(check.validator, arguments, target):
        raise _misfit(check.validator, arguments, target, units)


def _compile(schema: Any) -> _Check | str:
    """The check by a schema, or why there is none, as a clause."""
    if not isinstance(schema, dict):
        return "it is not an object"
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
        return str(fault)
    except (ValueError, TypeError, RecursionError) as error:
        return _short(str(getattr(error, "message", error)))


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
