"""What it costs to check arguments against a JSON Schema, bounded before anything is checked.

A schema is a tool server's text, and a validator follows it wherever it leads: a chain of 29 `allOf` with two `$ref`
each fits into 2 KB and takes half a billion steps. So the schema is measured first, without following it twice:

- `fault_of` says, when a definition is learned, why a schema can't be used at all.
- `Costs.units` bounds, before each check, the steps that these arguments take.

The bound is the largest number of subschemas that apply to one value, times the number of values. Applicators that
stay at the same value (`allOf`, `$ref`, ...) add up; those that go into it (`properties`, `items`, ...) reach each
inner value once for each way there is to it. A schema that refers to itself inside a value is honest, and its bound
grows with the depth of the arguments; one that refers to itself at the same value would never end, and is refused.

Source: JSON Schema 2020-12 core, sections 8.2 (references), 10 (applicators) and 11 (unevaluated), and their older
spellings. The weights are measured with jsonschema-rs 0.60; one unit is about 0.1 us.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

MAX_UNITS: Final = 1_000_000
"""Of one check: about 100 ms in the worst case, during which nobody else is served."""
MAX_OBJECTS: Final = 4000
"""In one schema: compiling it takes about 10 us for each."""
MAX_PATTERNS_MS: Final = 100.0
MAX_DEPTH: Final = 100
"""Of arguments; policy denies deeper ones anyway."""
MAX_PATTERN_TEXT: Final = 1000
"""Characters of a text to which a pattern that can backtrack is applied: its time grows with a power of them."""

_LEARNED_DEPTH = 3  # arguments of so many levels with one value must be possible, else the schema is refused
_ENOUGH: Final = 10 * MAX_UNITS  # counts end here
_MAX_UPDATES: Final = 60_000
"""Of the bounds of one schema, of about 1 us each; one of MAX_OBJECTS takes a tenth of them to begin with."""
_LISTS: Final = ("allOf", "anyOf", "oneOf")
_SINGLE: Final = ("not", "if", "then", "else")
_NAMED: Final = ("dependentSchemas", "dependencies")
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")
_UNEVALUATED_FACTOR = 4  # what applies at the same value is followed again to see what it evaluated; measured 3.2
_PATTERN_UNITS = 20
_BACKTRACKING_UNITS = 5000
_REPETITION = re.compile(r"\{(\d{0,6})(?:,(\d{0,6}))?\}")
_BACKTRACKS = re.compile(r"\(\?(?:[=!>]|<[=!])|\\[1-9kKG]|[*+?}]\+|\(\?\(")


_DRAFT = re.compile(r"draft-0\d")


class Unusable(Exception):  # noqa: N818 - says what the schema is
    """Why a schema can't be used, as a clause."""


class _Part(NamedTuple):
    """A subschema: which others apply at the same value, and which to the values in it."""

    here: tuple[int, ...]
    factor: int
    weight: int  # the units of what the keywords check that are not subschemas
    text_weight: int  # of those, what each further 64 characters of a text cost again
    either: tuple[int, ...]  # each inner value meets at most one of these
    every: tuple[int, ...]  # and perhaps all of these


class Costs:
    """The bounds of one schema. Raises Unusable, RecursionError.

    `bounded` is the schema as it may be compiled: a pattern that can backtrack is applied to texts of up to
    MAX_PATTERN_TEXT characters, and longer ones do not fit.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        reading = _Reading(schema)
        parts, order = reading.parts()
        users = _Users.of(parts)
        self._values = _Table(parts, order, users, [part.weight for part in parts])
        self._texts = _Table(parts, order, users, [part.text_weight for part in parts])
        if self._values.most(_LEARNED_DEPTH) > MAX_UNITS:
            raise Unusable(
                "checking arguments by it would take too many steps, as its parts apply to the same value too often"
            )
        self._names_backtrack = reading.names_backtrack
        self.bounded: dict[str, Any] = _bounded(schema, reading.backtracking) if reading.backtracking else schema

    def units(self, arguments: Any, enough: int = MAX_UNITS) -> int:
        """At most this many units does a check of these arguments take; more than `enough` is not counted exactly.

        Raises TypeError for what is not JSON.
        """
        values, texts, depth = measured(arguments, enough)
        if depth > MAX_DEPTH or (self._names_backtrack and _longest_name(arguments) > MAX_PATTERN_TEXT):
            return enough + 1
        return values * self._values.most(depth) + texts * self._texts.most(depth)


class _Users(NamedTuple):
    """For each part, the parts that have it `here`, `either` and `every`; one that has it twice is there twice."""

    here: list[list[int]]
    either: list[list[int]]
    every: list[list[int]]

    @classmethod
    def of(cls, parts: list[_Part]) -> _Users:
        here, either, every = ([list[int]() for _ in parts] for _ in range(3))
        for number, part in enumerate(parts):
            for users, used in ((here, part.here), (either, part.either), (every, part.every)):
                for one in used:
                    users[one].append(number)
        return cls(here, either, every)


class _Table:
    """The most units that are spent at one value, by the depth of the arguments; worked out as far as it is asked.

    Each level updates only the parts that its inner level changed, and all levels together take at most _MAX_UPDATES
    updates: arguments that are deeper than was worked out are taken to cost too much.
    """

    def __init__(self, parts: list[_Part], order: list[int], users: _Users, weights: list[int]) -> None:
        self._parts = parts
        self._order = order
        self._users = users
        self._position = [0] * len(parts)
        for position, number in enumerate(order):
            self._position[number] = position
        self._here = [0] * len(parts)  # sums of the units of those `here`
        self._inner = weights  # the weight, or what is below where that is more
        self._either = [0] * len(parts)
        self._every = [0] * len(parts)
        self._units = [0] * len(parts)
        self._changed: dict[int, int] = {}  # part -> its units before the last level
        self._updates = 0
        self._by_depth: list[int] = []
        self._is_settled = False

    def most(self, depth: int) -> int:
        """For arguments that are nested `depth` levels deep."""
        while len(self._by_depth) <= depth and not self._is_settled:
            self._by_depth.append(self._next())
            # Then deeper arguments change nothing any more.
            self._is_settled = not self._changed or self._by_depth[-1] >= _ENOUGH
        return self._by_depth[min(depth, len(self._by_depth) - 1)]

    def _next(self) -> int:
        """The units of the whole schema for one more level of depth."""
        stale = self._go_in() if self._by_depth else list(range(len(self._parts)))
        self._changed = {}
        heapq.heapify(stale)
        last = -1
        while stale:  # in the order in which what is `here` comes first
            position = heapq.heappop(stale)
            if position == last:
                continue
            last, number = position, self._order[position]
            before, part = self._units[number], self._parts[number]
            now = min(_ENOUGH, part.factor * self._here[number] + self._inner[number])
            if now == before:
                continue
            self._changed[number], self._units[number] = before, now
            users = self._users.here[number]
            self._updates += 1 + len(users)
            for user in users:
                self._here[user] += now - before
                heapq.heappush(stale, self._position[user])
        return self._units[0] if self._updates <= _MAX_UPDATES else _ENOUGH

    def _go_in(self) -> list[int]:
        """Take what the last level changed into the parts that hold it inside; the positions of these parts."""
        found: list[int] = []
        for number, before in self._changed.items():
            now = self._units[number]
            either, every = self._users.either[number], self._users.every[number]
            self._updates += len(either) + len(every)
            for user in either:
                self._either[user] = max(self._either[user], now)
            for user in every:
                self._every[user] += now - before
            for user in (*either, *every):
                self._inner[user] = max(self._inner[user], self._either[user] + self._every[user])
                found.append(self._position[user])
        return found


def fault_of(schema: dict[str, Any]) -> str | None:
    """Why a schema can't be used to check arguments, as a clause; None where it can."""
    try:
        Costs(schema)
    except Unusable as fault:
        return str(fault)
    except RecursionError:
        return "it is nested too deeply"
    return None


def measured(arguments: Any, enough: int) -> tuple[int, int, int]:
    """How many values there are, how many times 64 characters of text, and how deep they are nested.

    Neither is counted on beyond `enough` or MAX_DEPTH.
    """
    values, texts, depth, level = 1, 0, 0, [arguments]
    while level and values + texts <= enough and depth <= MAX_DEPTH:
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                values += len(value)
                texts += sum(map(len, value)) // 64
                below.extend(value.values())
            elif isinstance(value, list):
                values += len(value)
                below.extend(value)
            elif isinstance(value, str):
                texts += len(value) // 64
        depth += 1
        level = below
    return values, texts, depth


def can_backtrack(pattern: str) -> bool:
    """Whether a pattern needs more than a linear search: it looks around, refers back or is possessive."""
    return _BACKTRACKS.search(pattern) is not None


class _Reading:
    """Reads a schema into its parts; each object that is reached as a schema is one part."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema
        draft = _DRAFT.search(str(schema.get("$schema", ""))[:200])
        self._draft = draft[0] if draft else ""
        self._numbers: dict[int, int] = {}
        self._queue: list[tuple[dict[str, Any], str]] = []
        self._patterns_ms = 0.0
        self.backtracking: set[int] = set()  # ids of the parts whose `pattern` can backtrack
        self.names_backtrack = False  # a pattern of `patternProperties` can
        self._resources: dict[str, dict[str, Any]] = {"": schema}
        self._anchors: dict[tuple[str, str], dict[str, Any]] = {}
        self._dynamic: dict[str, list[dict[str, Any]]] = {}
        self._bases: dict[int, str] = {}
        self._survey()

    def _survey(self) -> None:
        """Note every `$id` and anchor, and how large the schema is."""
        pending: list[tuple[Any, str]] = [(self._root, "")]
        objects = 0
        while pending:
            node, base = pending.pop()
            if isinstance(node, list):
                pending += ((inner, base) for inner in node if isinstance(inner, dict | list))
                continue
            objects += 1
            if objects > MAX_OBJECTS:
                raise Unusable(f"it has more than {MAX_OBJECTS} parts")
            base = self._note(node, base)
            self._bases[id(node)] = base
            pending += ((inner, base) for inner in node.values() if isinstance(inner, dict | list))

    def _note(self, node: dict[str, Any], base: str) -> str:
        own = node.get("id" if self._draft == "draft-04" else "$id")
        if isinstance(own, str):
            uri, anchor = urldefrag(_joined(base, own))
            if anchor:
                self._anchors[uri, anchor] = node
            elif uri:
                base = uri
            self._resources.setdefault(base, node)
        for key in ("$anchor", "$dynamicAnchor"):
            name = node.get(key)
            if isinstance(name, str):
                self._anchors[base, name] = node
                self._dynamic.setdefault(name, []).append(node)
        return base

    def parts(self) -> tuple[list[_Part], list[int]]:
        """The parts, the whole schema first, and their numbers so that those `here` come before who refers to them."""
        self._number(self._root)
        parts: list[_Part] = []
        while len(parts) < len(self._queue):
            parts.append(self._part(*self._queue[len(parts)]))
        return parts, _ordered(parts)

    def _number(self, node: dict[str, Any]) -> int:
        number = self._numbers.get(id(node))
        if number is None:
            number = self._numbers[id(node)] = len(self._queue)
            self._queue.append((node, self._bases.get(id(node), "")))
        return number

    def _numbered(self, *nodes: Any) -> tuple[int, ...]:
        return tuple(self._number(node) for node in nodes if isinstance(node, dict))

    def _part(self, node: dict[str, Any], base: str) -> _Part:
        here: list[Any] = [*self._referred(node, base)]
        for key in _LISTS:
            here += _items(node.get(key))
        here += [node.get(key) for key in _SINGLE]
        for key in _NAMED:
            here += _values(node.get(key))
        unevaluated = [node.get(key) for key in _UNEVALUATED if key in node]
        items = node.get("items")
        either = [*_values(node.get("properties")), node.get("additionalProperties"), node.get("additionalItems")]
        either += [*_items(node.get("prefixItems")), *_items(items), items]
        every = [*_values(node.get("patternProperties")), node.get("contains"), node.get("propertyNames")]
        weight, text_weight = self._weights(node)
        return _Part(
            here=self._numbered(*here),
            factor=_UNEVALUATED_FACTOR if unevaluated else 1,
            weight=weight,
            text_weight=text_weight,
            either=self._numbered(*either),
            every=self._numbered(*every, *unevaluated),
        )

    def _weights(self, node: dict[str, Any]) -> tuple[int, int]:
        members = (node.get("properties"), node.get("required"))
        units = 1 + sum(len(one) for one in members if isinstance(one, dict | list)) // 8
        for key in ("dependentRequired", "dependencies"):
            units += sum(len(one) // 8 + 1 for one in _values(node.get(key)) if isinstance(one, list))
        # Texts and numbers are looked up, anything else is compared one by one.
        compared = [one for one in (*_items(node.get("enum")), node.get("const")) if isinstance(one, dict | list)]
        units += sum(10 * measured(one, _ENOUGH)[0] for one in compared)
        names = _names(node.get("patternProperties"))
        own = [node["pattern"]] if isinstance(node.get("pattern"), str) else []
        backtracking = sum(map(can_backtrack, names + own))
        self._patterns_ms += sum(map(_compiling_ms, names + own))
        if self._patterns_ms > MAX_PATTERNS_MS:
            raise Unusable("its patterns are too many or too large")
        self.names_backtrack = self.names_backtrack or any(map(can_backtrack, names))
        if any(map(can_backtrack, own)):
            self._backtracks(node)
        units += _PATTERN_UNITS * (len(names) + len(own) - backtracking)
        return units + _BACKTRACKING_UNITS * backtracking, units

    def _backtracks(self, node: dict[str, Any]) -> None:
        if self._draft in ("draft-04", "draft-06"):
            raise Unusable("it has a pattern that looks around or refers back, which is taken from draft 7 on")
        self.backtracking.add(id(node))

    def _referred(self, node: dict[str, Any], base: str) -> Iterator[dict[str, Any]]:
        """The subschemas that the references of a part lead to."""
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            reference = node.get(key)
            if not isinstance(reference, str):
                continue
            found = self._resolved(reference, base)
            if found is not None:
                yield found
            if key == "$dynamicRef":  # whichever is outermost counts, so each of them may
                yield from (one for one in self._dynamic.get(urldefrag(reference).fragment, ()) if one is not found)
            elif key == "$recursiveRef" and found is not self._root:
                yield self._root

    def _resolved(self, reference: str, base: str) -> dict[str, Any] | None:
        """The subschema that a reference leads to; None for one that is true or false."""
        uri, fragment = urldefrag(_joined(base, reference))
        resource = self._resources.get(uri)
        if resource is None:
            raise Unusable(f"it refers to {reference[:100]!r}, which is not in it")
        if not fragment:
            return resource
        if not fragment.startswith("/"):
            anchored: Any = self._anchors.get((uri, fragment))
        else:
            anchored = _pointed(resource, unquote(fragment))
        if isinstance(anchored, bool):
            return None
        if not isinstance(anchored, dict):
            raise Unusable(f"it refers to {reference[:100]!r}, which is not in it")
        return anchored


def _bounded(value: Any, backtracking: set[int]) -> Any:
    """A copy of a schema whose backtracking patterns are asked for their verdict on short texts only."""
    if isinstance(value, list):
        return [_bounded(inner, backtracking) for inner in value]
    if not isinstance(value, dict):
        return value
    copy = {key: _bounded(inner, backtracking) for key, inner in value.items()}
    if id(value) in backtracking:
        short = {"maxLength": MAX_PATTERN_TEXT}
        own = _items(copy.get("allOf"))
        copy["allOf"] = [*own, {"if": short, "then": {"pattern": copy.pop("pattern")}, "else": short}]
    return copy


def _longest_name(arguments: Any) -> int:
    longest, pending = 0, [arguments]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            longest = max(longest, max(map(len, value), default=0))
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return longest


def _pointed(node: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) leads to; None where that is nothing."""
    for escaped in pointer[1:].split("/"):
        step = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(step)
        elif isinstance(node, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(node):
            node = node[int(step[:9])]
        else:
            return None
    return node


def _ordered(parts: list[_Part]) -> list[int]:
    """Those that apply at the same value first. Raises Unusable where a part applies to itself at the same value."""
    order: list[int] = []
    state = [0] * len(parts)  # 1: on the way to it, 2: done
    for start in range(len(parts)):
        stack = [(start, iter(parts[start].here))] if not state[start] else []
        state[start] = state[start] or 1
        while stack:
            number, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                state[number] = 2
                order.append(number)
                stack.pop()
            elif state[following] == 1:
                raise Unusable("it refers to itself without going into the arguments, which never ends")
            elif not state[following]:
                state[following] = 1
                stack.append((following, iter(parts[following].here)))
    return order


def _joined(base: str, reference: str) -> str:
    try:
        return reference if not base and reference.startswith("#") else urljoin(base, reference)
    except ValueError:
        raise Unusable(f"{reference[:100]!r} in it is no address") from None


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _values(value: Any) -> list[Any]:
    return [*value.values()] if isinstance(value, dict) else []


def _names(value: Any) -> list[str]:
    return [*value] if isinstance(value, dict) else []


def _compiling_ms(pattern: str) -> float:
    """About how long compiling a pattern takes at most: classes of Unicode are written out for each repetition.

    A pattern that compiles to more than the guard's limit is given up after about 25 ms.
    """
    copies = 1
    for low, high in _REPETITION.findall(pattern):
        copies = min(_ENOUGH, copies * max(1, int(low or 0), int(high or 0)))
    classes = len(re.findall(r"\\[pP]", pattern))
    each_ms = 1.2 * classes + 0.05 * (pattern.count("\\w") + pattern.count("\\W")) + 0.0001 * len(pattern)
    return min(25.0, 0.02 + copies * each_ms)
