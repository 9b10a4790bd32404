"""Which keys a JSON Schema declares at each place of a value that it describes.

A schema is a stranger's text: it is read lazily, only where a value has an object, each place once, and within a
budget. References stay inside of it. What cannot be read raises `UnreadableSchemaError`; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urljoin

from gateway.protocols.key_folding import fold_name

# Subschemas and properties that one check may look at, and that are remembered of one schema.
MAX_LOOKED_AT = 20_000
_MAX_REMEMBERED = 100_000

_TOGETHER = ("allOf", "anyOf", "oneOf")  # lists of schemas for the same value; which of them holds is not decided here
_ALONGSIDE = ("if", "then", "else")
_BY_PROPERTY = ("dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_OTHER_PROPERTIES = ("additionalProperties", "unevaluatedProperties")
_LISTED_ITEMS = ("prefixItems", "items")
_OTHER_ITEMS = ("items", "additionalItems", "unevaluatedItems", "contains")
_META_SCHEMAS = ("http://json-schema.org/", "https://json-schema.org/")
_MAP_WORDS = ("patternProperties", "propertyNames")


class UnreadableSchemaError(ValueError):
    """The keys that a schema declares cannot be told. The message is a clause that says why."""


class Place:
    """What is declared for the values at one place. Nothing is evaluated: alternatives are taken together."""

    __slots__ = ("_children", "_listed_items", "_nodes", "_other", "_schema", "_spellings", "declared")

    def __init__(self, schema: SchemaKeys, nodes: list[dict[str, Any]]) -> None:
        self._schema = schema
        self._nodes = nodes
        self._children: dict[str | int, Place | None] = {}  # of declared keys, and of items
        self._other: tuple[Place | None] | None = None  # of all other keys
        self._spellings: dict[str, str] | None = None
        self.declared: set[str] = set()
        for node in nodes:
            properties = node.get("properties")
            if isinstance(properties, dict):
                schema.spend(len(properties))
                self.declared.update(properties)
        lists = (node.get(word) for node in nodes for word in _LISTED_ITEMS)
        self._listed_items = max((len(one) for one in lists if isinstance(one, list)), default=0)

    @property
    def is_silent(self) -> bool:
        """Whether nothing is said about keys here, not even that they are free."""
        return not self.declared and not any(map(_describes_a_map, self._nodes))

    def spelling_of(self, key: str) -> str | None:
        """The declared key that `key` is another spelling of; None where there is none."""
        if self._spellings is None:
            self._spellings = {fold_name(name): name for name in self.declared}
        return self._spellings.get(fold_name(key))

    def property(self, key: str) -> Place | None:
        """The place of a property's value; None where nothing is said about it."""
        if key in self.declared:
            return self._child(key, self._of_property)
        if self._other is None:
            self._other = (self._schema.place(list(self._of_property(None))),)
        return self._other[0]

    def item(self, index: int) -> Place | None:
        """The place of an array's item; None where nothing is said about it."""
        return self._child(min(index, self._listed_items), self._of_item)

    def _child(self, step: Any, subschemas: Callable[[Any], Iterator[Any]]) -> Place | None:
        if step not in self._children:
            self._schema.spend(len(self._nodes))
            self._children[step] = self._schema.place(list(subschemas(step)))
        return self._children[step]

    def _of_property(self, key: str | None) -> Iterator[Any]:
        for node in self._nodes:
            properties, patterns = node.get("properties"), node.get("patternProperties")
            if isinstance(properties, dict) and key in properties:
                yield properties[key]
            else:
                yield from (node[word] for word in _OTHER_PROPERTIES if word in node)
            if isinstance(patterns, dict):  # not matched: a pattern is a stranger's program
                yield from patterns.values()

    def _of_item(self, index: int) -> Iterator[Any]:
        for node in self._nodes:
            for word in _LISTED_ITEMS:
                if isinstance(listed := node.get(word), list) and index < len(listed):
                    yield listed[index]
            yield from (node[word] for word in _OTHER_ITEMS if word in node)


def _describes_a_map(node: dict[str, Any]) -> bool:
    return any(word in node for word in _MAP_WORDS) or any(
        node.get(word, False) is not False for word in _OTHER_PROPERTIES
    )


class SchemaKeys:
    """The places of one schema. It must not change while this is in use."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._places: dict[tuple[int, ...], Place | None] = {}
        self._anchors: dict[str, Any] | None = None
        self._left = 0
        self._remembered = 0

    def root(self) -> Place | None:
        """The place of the whole value, with a new budget. Raises UnreadableSchemaError, as does every look further."""
        self._left = MAX_LOOKED_AT
        if self._remembered > _MAX_REMEMBERED:
            self._places.clear()
            self._remembered = 0
        return self.place([self._schema])

    def spend(self, amount: int) -> None:
        """Count what is looked at. Raises UnreadableSchemaError where it is too much."""
        self._left -= amount
        self._remembered += amount
        if self._left < 0:
            raise UnreadableSchemaError("it is too large or too tangled to compare keys with")

    def place(self, subschemas: list[Any]) -> Place | None:
        """The place that `subschemas` describe together; None where they say nothing."""
        nodes = [one for one in subschemas if isinstance(one, dict) and one]
        if not nodes:
            return None
        key = tuple(map(id, nodes))
        if key not in self._places:
            self._places[key] = Place(self, self._closure(nodes))
        return self._places[key]

    def _closure(self, nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """`nodes` and all that they bring in for the same value: alternatives, conditions, references."""
        found: dict[int, dict[str, Any]] = {}
        todo = list(nodes)
        while todo:
            node = todo.pop()
            if not isinstance(node, dict) or id(node) in found:
                continue
            self.spend(1)
            found[id(node)] = node
            for word in _TOGETHER:
                listed = node.get(word)
                if isinstance(listed, list):
                    self.spend(len(listed))
                    todo.extend(listed)
            todo.extend(node[word] for word in _ALONGSIDE if word in node)
            for word in _BY_PROPERTY:
                if isinstance(node.get(word), dict):
                    self.spend(len(node[word]))
                    todo.extend(node[word].values())
            todo.extend(self._target(node[word]) for word in _REFERENCES if word in node)
        return list(found.values())

    # ------------------------------------------------------------ references

    def _target(self, reference: Any) -> Any:
        """What `reference` points to. Raises UnreadableSchemaError for what is not in this schema."""
        if not isinstance(reference, str):
            raise UnreadableSchemaError("a reference in it is not a text")
        base, _, fragment = reference.partition("#")
        if base.startswith(_META_SCHEMAS):
            return {}  # a value that is a schema itself: what is in it is its author's
        resource = self._schema if not base else self._anchored(base, reference)
        if not fragment:
            return resource
        if not fragment.startswith("/"):
            return self._anchored(f"#{fragment}", reference)
        for step in unquote(fragment)[1:].split("/"):
            resource = _inside(resource, step.replace("~1", "/").replace("~0", "~"), reference)
        return resource

    def _anchored(self, name: str, reference: str) -> Any:
        if self._anchors is None:
            self._anchors = self._all_anchors()
        for written in (name, self._absolute(name)):
            if written in self._anchors:
                return self._anchors[written]
        raise _dangling(reference)

    def _absolute(self, name: str) -> str:
        root = self._schema.get("$id", self._schema.get("id"))
        try:
            return urljoin(root, name) if isinstance(root, str) else name
        except ValueError:  # no URL
            return name

    def _all_anchors(self) -> dict[str, Any]:
        """Every subschema that has a name of its own: by `#anchor`, and by its `$id` as written and made absolute."""
        found: dict[str, Any] = {}
        todo: list[Any] = [self._schema]
        while todo:
            value = todo.pop()
            self.spend(1)
            if isinstance(value, dict):
                for word in ("$anchor", "$dynamicAnchor"):
                    if isinstance(name := value.get(word), str):
                        found.setdefault(f"#{name}", value)
                for word in ("$id", "id"):
                    if isinstance(name := value.get(word), str):
                        found.setdefault(name.removesuffix("#"), value)
                        found.setdefault(self._absolute(name).removesuffix("#"), value)
                todo.extend(value.values())
            elif isinstance(value, list):
                todo.extend(value)
        return found


def _inside(resource: Any, step: str, reference: str) -> Any:
    if isinstance(resource, dict) and step in resource:
        return resource[step]
    if (
        isinstance(resource, list)
        and step.isascii()
        and step.isdigit()
        and len(step) < 10
        and int(step) < len(resource)
    ):
        return resource[int(step)]
    raise _dangling(reference)


def _dangling(reference: str) -> UnreadableSchemaError:
    return UnreadableSchemaError(f"the reference {reference[:100]!r} is not in it")
