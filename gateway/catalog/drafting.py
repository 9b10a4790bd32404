"""Drafts a manifest of an agent's own tools from what the agent was seen to declare.

Owns: the text of the draft. Each guess (guessing.py) bears `# review:`, so that a person looks at it.
Never: believes an agent. Its words stand in the draft as comments, quoted, in ASCII and cut; what a manifest can't
name is left out and told.
Fails closed: a draft that would not load is not handed out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from gateway import documents
from gateway.catalog.guessing import Argument, argument_of, effect_of
from gateway.catalog.manifests import MAX_SENTENCE, ArgumentName, Manifest, ToolName

MAX_ARGUMENTS = 64
_MAX_SHOWN = 160  # characters of an agent's words

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_IN_SENTENCE = re.compile(r"\w+")
_WORDS_OF_YAML = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))
_tool_name: TypeAdapter[str] = TypeAdapter(ToolName)
_argument_name: TypeAdapter[str] = TypeAdapter(ArgumentName)


class Drafted(NamedTuple):
    """One tool as the draft has it; `left_out` are arguments that a manifest can't name."""

    tool: str
    description: str
    risk: str
    effect: str
    why: str
    sentence: str
    arguments: tuple[Argument, ...]
    left_out: tuple[str, ...]


class Draft(NamedTuple):
    """A manifest as text, and what is in it. `left_out` are tools that a manifest can't name."""

    server: str
    text: str
    tools: tuple[Drafted, ...]
    left_out: tuple[str, ...]


def draft(agent: str, server: str, owner: str, seen: Iterable[Mapping[str, Any]]) -> Draft:
    """A manifest `server` of the tools in `seen` (each with tool, description, parameters).

    Raises ValueError with a sentence where none can be drafted.
    """
    tools, left_out = [], []
    for one in seen:
        if _fits(_tool_name, one["tool"]):
            tools.append(_drafted(one["tool"], str(one.get("description") or ""), one.get("parameters")))
        else:
            left_out.append(str(one["tool"]))
    text = "\n".join(_lines(agent, server, owner, tools, left_out)) + "\n"
    document, problems = documents.parse(text.encode(), "the draft")
    if document is not None:
        _, problems = documents.validate(document, Manifest)
    if problems:
        raise ValueError(f"{problems[0].message} {problems[0].mend}".strip())
    return Draft(server, text, tuple(tools), tuple(left_out))


def server_fits(server: str) -> bool:
    """Whether a manifest may bear this name."""
    try:
        Manifest(version=1, server=server, kind="client", owner="somebody")
    except ValidationError:
        return False
    return True


def server_of(agent: str, taken: Collection[str]) -> str:
    """A name for an agent's tools: its own, as far as it may stand and is free."""
    plain = re.sub(r"_{2,}", "_", re.sub(r"[^a-z0-9_-]", "-", agent.lower())).strip("-_") or "agent"
    for number in range(1, len(taken) + 2):
        end = "" if number == 1 else f"-{number}"
        name = plain[: 32 - len(end)].rstrip("-_") + end
        if name not in taken and server_fits(name):
            return name
    return f"{plain[:26].rstrip('-_')}-tools"


# ---------------------------------------------------------------- tools


def _drafted(name: str, description: str, parameters: Any) -> Drafted:
    schema = parameters if isinstance(parameters, dict) else {}
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    every = tuple(argument_of(argument, known[argument]) for argument in known)
    arguments = tuple(argument for argument in every if _nameable(argument.name))[:MAX_ARGUMENTS]
    kept = {argument.name for argument in arguments}
    required = schema.get("required")
    needed = [one for one in required if isinstance(one, str) and one in kept] if isinstance(required, list) else []
    effect, why = effect_of(name, every)
    return Drafted(
        tool=name,
        description=description,
        risk="medium" if effect == "read" else "high",
        effect=effect,
        why=why,
        sentence=_sentence(name, list(dict.fromkeys(needed))),
        arguments=arguments,
        left_out=tuple(argument for argument in known if argument not in kept),
    )


def _sentence(name: str, needed: list[str]) -> str:
    sentence = f"Call {name}"
    for argument in needed:
        part = f"{' with' if '{' not in sentence else ','} {argument} {{{argument}}}"
        if _IN_SENTENCE.fullmatch(argument) and len(sentence) + len(part) <= MAX_SENTENCE:
            sentence += part
    return sentence


def _nameable(argument: str) -> bool:
    # Two angle brackets are YAML's merge key, which manifests do not know.
    return _fits(_argument_name, argument) and argument.isprintable() and argument != "<<"


def _fits(kind: TypeAdapter[str], value: Any) -> bool:
    try:
        kind.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


# ---------------------------------------------------------------- text


def _lines(agent: str, server: str, owner: str, tools: list[Drafted], left_out: list[str]) -> Iterator[str]:
    yield f"# A draft, made from what the agent {_shown(agent)} was seen to declare to models. Nothing was checked."
    yield "# What bears `review:` is guessed from names; what stands in quotes over a tool are the agent's own words."
    yield "# Correct both and take the marks out; then put the file into the tool registry and run `gateway check`."
    yield "version: 1"
    yield f"server: {_key(server)}"
    yield "kind: client # the agent executes these tools"
    yield f"title: {_quoted(f'Tools of the agent {agent}')}"
    yield f"owner: {_quoted(owner)} # review: who answers for these tools"
    yield "tools:" if tools else "tools: {}"
    for tool in tools:
        yield from _tool_lines(tool)
    for name in left_out:
        yield f"# left out, as a manifest can't name it: {_shown(name)}"


def _tool_lines(tool: Drafted) -> Iterator[str]:
    yield f"  {_key(tool.tool)}:"
    if tool.description:
        yield f"    # {_shown(tool.description)}"
    yield f"    risk: {tool.risk} # review: guessed with the effect"
    yield f"    effect: {tool.effect} # review: {tool.why}"
    yield f"    sentence: {_quoted(tool.sentence)} # review: say what it would do"
    if tool.arguments:
        yield "    arguments:"
    for argument in tool.arguments:
        review = "" if argument.review is None else f" # review: {argument.review}"
        yield f"      {_key(argument.name)}: {{kind: {argument.kind}}}{review}"
    for name in tool.left_out[:MAX_ARGUMENTS]:
        yield f"      # left out, as a manifest can't name it or has enough: {_shown(name)}"


def _key(name: str) -> str:
    plain = _PLAIN_KEY.fullmatch(name) and name.lower() not in _WORDS_OF_YAML
    return name if plain else _quoted(name)


def _shown(text: str) -> str:
    """An agent's words for a comment."""
    return _quoted(text[:_MAX_SHOWN]) + (" ..." if len(text) > _MAX_SHOWN else "")


def _quoted(text: str) -> str:
    """Text as YAML's double-quoted scalar, in ASCII and on one line."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isascii() and character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
