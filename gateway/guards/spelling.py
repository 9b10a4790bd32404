"""Keys of a tool call's arguments: one spelling each, so that a tool reads what policy and people read.

A key that is not declared, but that a reader without regard to case or Unicode form takes for one that is, is refused;
so are two such keys in one object where no schema is known. Maps keep their case. What is declared comes from the
schema and, for the arguments themselves, from the manifest that policies go by.

Pure: the same function judges calls at the MCP door and calls that a model proposes. Fails closed: a schema whose keys
cannot be told, and more odd keys than can be compared, are reported like a fault.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gateway.actions import ToolTarget
from gateway.guards.schema_keys import Place, SchemaKeys, UnreadableSchemaError
from gateway.protocols.key_folding import fold, fold_name

_SHOWN_CHARS = 64
_SHOWN_STEPS = 8  # of a path, the last ones
# Keys outside ASCII that one check compares: so many characters, and for each key this many more.
_MAX_ODD_CHARS = 40_000
_ODD_KEY_CHARS = 16

_Path = tuple[Any, str | int] | None  # the path that it continues, and a step


class _TooManyOddKeysError(Exception):
    """More keys outside ASCII than are compared."""


def check_keys(arguments: dict[str, Any], schema: Any, names: Collection[str] = ()) -> str | None:
    """What is wrong with the keys of `arguments`, as a sentence with the dotted path; None where nothing is.

    `schema` is a JSON Schema, or None where none is known. `names` are top-level arguments that a manifest describes.
    """
    return _checked(arguments, [schema], schema, names)


def check_proposal(arguments: dict[str, Any], declared: dict[str, Any] | None, target: ToolTarget) -> str | None:
    """As `check_keys`, for a call that a model proposes: by the schema that the agent declared and, where the tool is
    the gateway's, by the one that its server published."""
    own = (target.definition or {}).get("inputSchema")
    return _checked(arguments, [declared, own], own, target.arguments)


def _checked(arguments: dict[str, Any], schemas: list[Any], own: Any, names: Collection[str]) -> str | None:
    try:
        places = [keys_of(schema).root() for schema in schemas]
        own_place = keys_of(own).root() if names else None
        return respelling_in(arguments, places, names, () if own_place is None else own_place.declared)
    except UnreadableSchemaError as error:
        return f"The input schema cannot be read: {error}."


def keys_of(schema: Any) -> SchemaKeys:
    """The keys of a schema; of one that is no object, and so says nothing, none."""
    return SchemaKeys(schema if isinstance(schema, dict) else {})


def respelling_in(
    arguments: dict[str, Any], places: list[Place | None], names: Collection[str], own: Collection[str]
) -> str | None:
    """As `check_keys`; `places` are the roots of all schemas, `own` the top-level keys that the tool's server declares.

    Raises UnreadableSchemaError.
    """
    known = [place for place in places if place is not None and not place.is_silent]
    try:
        fault = _named_otherwise(arguments, names, own)
        for place in known:
            fault = fault or _undeclared(arguments, place)
        return fault or (None if known else _like_another(arguments))
    except _TooManyOddKeysError:
        return "The arguments have too many keys outside ASCII to compare them."


def _named_otherwise(arguments: dict[str, Any], names: Collection[str], own: Collection[str]) -> str | None:
    """A top-level key that is another spelling of one that the manifest describes."""
    odd = [key for key in arguments if key not in names and key not in own] if names else []
    if not odd:
        return None
    _Odd().look_at(odd)
    spellings = {fold_name(name): name for name in names}
    for key in odd:
        meant = spellings.get(fold_name(key))
        if meant is not None:
            return _other_spelling((None, key), meant)
    return None


def _undeclared(arguments: dict[str, Any], root: Place) -> str | None:
    """A key, at any level with declared ones, that is not declared and another spelling of one that is."""
    odd_keys = _Odd()
    todo: list[tuple[Any, Place | None, _Path]] = [(arguments, root, None)]
    while todo:
        value, place, path = todo.pop()
        if place is None:
            continue
        if isinstance(value, list):
            todo.extend(
                (inner, place.item(index), (path, index))
                for index, inner in enumerate(value)
                if isinstance(inner, (dict, list))
            )
            continue
        if place.declared and not value.keys() <= place.declared:
            odd = [key for key in value if key not in place.declared]
            odd_keys.look_at(odd)
            for key in odd:
                meant = place.spelling_of(key)
                if meant is not None:
                    return _other_spelling((path, key), meant)
        todo.extend(
            (inner, place.property(key), (path, key)) for key, inner in value.items() if isinstance(inner, (dict, list))
        )
    return None


def _like_another(arguments: dict[str, Any]) -> str | None:
    """Two keys of one object, at any level, that some reader takes for the same."""
    odd_keys = _Odd()
    todo: list[tuple[Any, _Path]] = [(arguments, None)]
    while todo:
        value, path = todo.pop()
        if isinstance(value, list):
            todo.extend((one, (path, index)) for index, one in enumerate(value) if isinstance(one, (dict, list)))
            continue
        if len(value) > 1 and not _are_plain(value):
            odd_keys.look_at(value)
            seen: dict[str, str] = {}
            for key in value:
                first = seen.setdefault(fold(key), key)
                if first != key:
                    return (
                        f"The arguments `{_shown((path, first))}` and `{_shown((path, key))}` differ only in spelling;"
                        " send one of them."
                    )
        todo.extend((inner, (path, key)) for key, inner in value.items() if isinstance(inner, (dict, list)))
    return None


def _are_plain(keys: Collection[str]) -> bool:
    """Whether each key is what it folds to, so that no two of them fold to the same."""
    text = "".join(keys)
    return text.isascii() and "\0" not in text and text == text.lower()


class _Odd:
    """Counts the keys outside ASCII that are compared: normalising them takes time."""

    def __init__(self) -> None:
        self._left = _MAX_ODD_CHARS

    def look_at(self, keys: Collection[str]) -> None:
        for key in keys:
            if not key.isascii():
                self._left -= len(key) + _ODD_KEY_CHARS
                if self._left < 0:
                    raise _TooManyOddKeysError


def _other_spelling(path: _Path, meant: str) -> str:
    return f"The argument `{_shown(path)}` is another spelling of `{_step(meant)}`; send `{_step(meant)}`."


def _shown(path: _Path) -> str:
    steps: list[str] = []
    while path is not None and len(steps) < _SHOWN_STEPS:
        path, step = path
        steps.append(_step(step))
    return ".".join([*([] if path is None else ["..."]), *reversed(steps)])


def _step(step: str | int) -> str:
    """A key or index as it may appear in a sentence: short, and what may look like another letter as its escape."""
    if isinstance(step, int):
        return str(step)
    escaped = step[:_SHOWN_CHARS].encode("ascii", "backslashreplace").decode()
    plain = "".join(one if one.isprintable() and one != "`" else f"\\x{ord(one):02x}" for one in escaped)
    return plain if len(step) <= _SHOWN_CHARS else f"{plain}..."
