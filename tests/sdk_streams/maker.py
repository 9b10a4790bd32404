"""What streams and plain answers are made with: the dice, the names, and the book of what must become of each call."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.sdk_streams.upstream import NAMES, Call, Effect, Upstream, arguments, request_of, tool_names

_WELL_FORMED = 0.4  # the share of answers that are what OpenAI itself would send


class Maker:
    """One answer while it is being made. The same `kind`, seed and number make the same answer."""

    def __init__(self, kind: str, seed: str, number: int) -> None:
        self.kind = kind
        self.name = f"{seed}/{number}"
        self.rng = Random(f"{kind}/{self.name}")
        self.well_formed = self.rng.random() < _WELL_FORMED
        self.calls = 0
        self.markers: list[str] = []
        self.names: list[str] = []
        self.intended: list[Call] | None = []
        self.texts: dict[int, str] = {}
        self.cut_off: set[int] = set()
        self.oddities: list[str] = []

    def chance(self, probability: float) -> bool:
        """Whether something odd is done here; never in a well-formed answer."""
        return not self.well_formed and self.rng.random() < probability

    def odd(self, what: str, effect: Effect = Effect.KEEPS) -> None:
        """Note an oddity of the answer, and that it leaves open what must be released."""
        self.oddities.append(what)
        if effect is Effect.OPEN:
            self.intended = None

    def note(self, effect: Effect, call: Call) -> None:
        """Note what must become of a call."""
        if effect is Effect.OPEN:
            self.intended = None
        elif effect is Effect.KEEPS and self.intended is not None:
            self.intended.append(call)

    def marker(self) -> str:
        """A word that no other call has."""
        marker = f"mark-{self.name.replace('/', '-')}-{len(self.markers)}."
        self.markers.append(marker)
        return marker

    def tool(self, *, but: str | None = None) -> str:
        """The name of a tool."""
        name = self.rng.choice([name for name in NAMES if name != but])
        self.names.append(name)
        return name

    def call_id(self) -> str:
        self.calls += 1
        return f"call_{self.rng.randrange(36**6)}{self.calls}"

    def function(self, *, but: str | None = None) -> dict[str, Any]:
        """A function with arguments."""
        return {"name": self.tool(but=but), "arguments": arguments(self.rng, self.marker())}

    def evil_call(self) -> dict[str, Any]:
        """A call for a place that no call may be read from."""
        return {"index": 0, "id": "evil", "type": "function", "function": self.function()}

    def strange_value(self) -> Any:
        """Something of a type that is not expected."""
        return self.rng.choice((7, "text", [], {}, True, [7], {"tool_calls": {}}))

    def upstream(self, pieces: tuple[bytes, ...], choices: int, *, n: int, usage: bool = False) -> Upstream:
        """The answer. `n`: the number of choices that the agent asks for, which need not be what it gets."""
        stream = self.kind == "stream"
        offered = tuple(dict.fromkeys(self.names)) if self.well_formed or self.rng.random() < 0.97 else ()
        return Upstream(
            name=self.name,
            kind=self.kind,
            pieces=pieces,
            request=request_of(offered, stream=stream, usage=usage, choices=n),
            tools=(*tool_names([*self.names, "Write"]), "text"),  # what `oddities.wrong_shape` gives for a name
            intended=None if self.intended is None else tuple(self.intended),
            texts=None if self.intended is None else self.texts,
            well_formed=self.well_formed,
            choices=choices,
            cut_off=frozenset(self.cut_off),
            markers=tuple(self.markers),
            oddities=tuple(self.oddities),
        )
