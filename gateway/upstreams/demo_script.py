"""The script of the `demo` provider: rules in a YAML file, read and checked; the first that fits decides.

The packaged script serves the quickstart and explains the format in its first lines.
"""

from __future__ import annotations

import importlib.resources
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway import documents
from gateway.documents import Problem

PACKAGED = "quickstart.yaml"
SEARCHED_CHARS = 4000  # of the last user message; rules are not run over a whole book
_PLACEHOLDER = re.compile(r"\{(\w+)(?::(cents|int|lower))?(?:\|([^{}]*))?\}")
_AFTER_TOOL = frozenset(("tool", "result"))


class Talk(NamedTuple):
    """What rules look at. `tool` and `result` are set where the conversation ends with a tool's result."""

    user: str
    offered: tuple[str, ...]
    tool: str | None
    result: str | None


class Line(NamedTuple):
    """What the model answers: words, or tool calls as (offered name, arguments)."""

    text: str | None
    calls: tuple[tuple[str, dict[str, Any]], ...]
    delay_s: float
    chunk_delay_s: float


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as fault:
        raise ValueError(f"not a regular expression: {fault}. Test it with Python's re module") from None
    return pattern


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Condition(_Model):
    """All that is given must hold."""

    user: Annotated[str, AfterValidator(_compiles)] | None = None
    contains: str | None = None  # in the last user message, whatever the case
    offers: str | None = None
    after_tool: bool = False


class Call(_Model):
    """A tool call to propose; texts in `arguments` are templates, at any depth."""

    tool: str
    arguments: dict[str, Any] = {}


class Rule(_Model):
    """When `if` holds, `say` something, or propose to `call` tools, or both. Delays in seconds."""

    condition: Condition = Field(default_factory=Condition, alias="if")
    say: str | None = None
    call: Call | list[Call] | None = None
    delay_s: float = Field(default=0.0, ge=0, le=600)
    chunk_delay_s: float = Field(default=0.0, ge=0, le=60)

    @property
    def calls(self) -> list[Call]:
        return self.call if isinstance(self.call, list) else [self.call] if self.call else []

    @model_validator(mode="after")
    def _whole(self) -> Rule:
        if self.say is None and not self.calls:
            raise ValueError("a rule needs `say` or `call`")
        known = set(re.compile(self.condition.user or "").groupindex) | {"user"}
        if self.condition.after_tool:
            known |= _AFTER_TOOL
        for name in _placeholders([self.say, [call.arguments for call in self.calls]]):
            if name not in known:
                told = ", ".join(sorted(known))
                raise ValueError(f"the template names {{{name}}}, which this rule does not have. It has: {told}")
        return self

    def answer(self, talk: Talk) -> Line | None:
        """What this rule answers, or None if it does not fit."""
        condition = self.condition
        if condition.after_tool != (talk.result is not None):
            return None
        values: dict[str, str | None] = {"user": talk.user, "tool": talk.tool, "result": talk.result}
        if condition.contains is not None and condition.contains.lower() not in talk.user.lower():
            return None
        if condition.user is not None:
            found = re.search(condition.user, talk.user[:SEARCHED_CHARS])
            if found is None:
                return None
            values |= found.groupdict()
        if condition.offers is not None and _offered(condition.offers, talk) is None:
            return None
        calls = []
        for call in self.calls:
            name = _offered(call.tool, talk)
            if name is None:  # a model can't call what it was not offered
                return None
            calls.append((name, {key: _fill(value, values) for key, value in call.arguments.items()}))
        text = None if self.say is None else str(_fill(self.say, values))
        return Line(text, tuple(calls), self.delay_s, self.chunk_delay_s)


class Script(_Model):
    """The whole file."""

    version: Literal[1]
    rules: list[Rule] = Field(min_length=1)

    def answer(self, talk: Talk) -> Line:
        """What the first rule that fits answers; a script may leave a case open, then it says so."""
        for rule in self.rules:
            line = rule.answer(talk)
            if line is not None:
                return line
        return Line("The script of this model has no rule for that.", (), 0.0, 0.0)


def load(path: str | Path | None) -> tuple[Script | None, list[Problem]]:
    """The script at `path`, or the packaged one; None and every problem with its line if it can't stand."""
    if path is not None:
        return documents.read(path, Script)
    raw = (importlib.resources.files("gateway.upstreams") / "scripts" / PACKAGED).read_bytes()
    document, problems = documents.parse(raw, PACKAGED)
    if document is None:
        return None, problems
    script, more = documents.validate(document, Script)
    return script, problems + more


def _offered(tool: str, talk: Talk) -> str | None:
    """The name under which a tool is offered: its own, or with its server's before it."""
    for name in talk.offered:
        if name == tool or name.endswith(f"__{tool}"):
            return name
    return None


def _placeholders(value: Any) -> list[str]:
    if isinstance(value, str):
        return [found[1] for found in _PLACEHOLDER.finditer(value)]
    if isinstance(value, dict):
        value = list(value.values())
    return [name for one in value for name in _placeholders(one)] if isinstance(value, list) else []


def _fill(value: Any, values: dict[str, str | None]) -> Any:
    """A template with its values; a text that is nothing but one number placeholder becomes that number."""
    if isinstance(value, dict):
        return {key: _fill(one, values) for key, one in value.items()}
    if isinstance(value, list):
        return [_fill(one, values) for one in value]
    if not isinstance(value, str):
        return value
    alone = _PLACEHOLDER.fullmatch(value)
    if alone is not None:
        return _one(alone, values)
    return _PLACEHOLDER.sub(lambda found: str(_one(found, values)), value)


def _one(found: re.Match[str], values: dict[str, str | None]) -> str | int:
    text = values.get(found[1]) or found[3] or ""
    if found[2] == "lower":
        return text.lower()
    if found[2] in ("int", "cents"):
        number = re.sub(r"[^\d.-]", "", text.strip().replace(",", ".")) or "0"
        try:
            amount = Decimal(number)
        except ArithmeticError:
            return 0
        return int((amount * (100 if found[2] == "cents" else 1)).to_integral_value(ROUND_HALF_UP))
    return text
