"""Names that policies and grants mention, against the names that the gateway knows.

A name that nothing has is no error (a tool can be registered later), but it is silent: a grant for it grants nothing,
a rule about it never fires. So it is a warning, with the name that was probably meant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

import msgspec

from gateway.documents import Problem, suggest

MAX_TOLD = 25  # of one kind; beyond that they are counted

Match = Literal["is", "starts", "ends", "holds", "glob", "regex"]
Kind = Literal["agent", "team", "tier", "use case", "target", "server", "tool", "model", "provider", "group"]


class Mention(NamedTuple):
    """A name, and where it stands. `server` is the one that a tool's bare name belongs to, where it is known.

    `place` gives file and line; it is slow, and called for problems only.
    """

    kind: Kind
    value: str
    place: Callable[[], tuple[str, int]]
    match: Match = "is"
    server: str | None = None
    grant: bool = False  # it stands in the grants; else in a rule


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What there is. `tools` are names by server, of servers that are switched off too; `risks` are theirs, by
    `server__tool`.

    `agents` may be less than all (`agents_complete` false) where those that were registered through the API can't be
    seen. The teams, tiers and use cases are those of the agents.
    """

    tools: Mapping[str, frozenset[str]]
    risks: Mapping[str, str] = {}
    models: frozenset[str]
    providers: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()
    teams: frozenset[str] = frozenset()
    tiers: frozenset[str] = frozenset()
    use_cases: frozenset[str] = frozenset()
    agents_complete: bool = True
    groups: frozenset[str] = frozenset()
    undeclared: str = "deny"  # the setting undeclared_client_tools


_UNDECLARED_SERVER = "client"  # the server of tools that no manifest declares
_OF_AGENTS = frozenset({"agent", "team", "tier", "use case"})
_UNSEEN = "If it was registered through the API, this is fine: only the running gateway knows those agents."


def unknown(mentions: Iterable[Mention], known: Known) -> list[Problem]:
    """A warning for each name that does not exist, at most `MAX_TOLD` of a kind."""
    found: list[Problem] = []
    told: Counter[str] = Counter()
    first: dict[str, Mention] = {}
    about: set[tuple[str, str]] = set()  # file, server: rules about a server that is not there are told of once
    for one in dict.fromkeys(_without_server(each, known) for each in mentions):
        names = _names(one, known)
        if names is None or _matches(one, names) or _may_be_undeclared(one, names, known):
            continue
        file, line = one.place() if told[one.kind] < MAX_TOLD else ("", 0)
        if one.kind == "server" and not one.grant and file:
            if (file, one.value) in about:
                continue
            about.add((file, one.value))
        told[one.kind] += 1
        first.setdefault(one.kind, one)
        if told[one.kind] <= MAX_TOLD:
            found.append(Problem(file, line, _message(one), _mend(one, names, known), "warning"))
    for kind, count in told.items():
        if count > MAX_TOLD:
            message = f"{count - MAX_TOLD} more names of kind {kind!r} are unknown."
            found.append(Problem(first[kind].place()[0], 0, message, "Fix those above first.", "warning"))
    return sorted(set(found), key=lambda one: (one.file, one.line, one.message))


def _without_server(one: Mention, known: Known) -> Mention:
    """A rule about a tool of a server that is not there is about that server."""
    server, separator, tool = one.value.partition("__")
    if one.kind != "target" or one.match != "is" or not (server and separator and tool) or server in known.tools:
        return one
    return one._replace(kind="server", value=server)


def _names(one: Mention, known: Known) -> frozenset[str] | None:
    """The names that there are of a mention's kind; None where that can't be said."""
    tools = known.tools
    match one.kind:
        case "agent":
            return known.agents
        case "team":
            return known.teams
        case "tier":
            return known.tiers
        case "use case":
            return known.use_cases
        case "model":
            return known.models
        case "provider":
            return known.providers
        case "group":
            return known.groups
        case "server":
            return frozenset(tools)
        case "target":
            return frozenset(f"{server}__{tool}" for server, of in tools.items() for tool in of) | known.models
        case "tool":
            if one.server is not None:
                return tools.get(one.server)  # of a server that is unknown itself, nothing more is said
            return frozenset(tool for of in tools.values() for tool in of)


def _matches(one: Mention, names: frozenset[str]) -> bool:
    value = one.value
    match one.match:
        case "is":
            return value in names
        case "starts":
            return any(name.startswith(value) for name in names)
        case "ends":
            return any(name.endswith(value) for name in names)
        case "holds":
            return any(value in name for name in names)
        case "glob":
            return "{" in value or any(fnmatchcase(name, value) for name in names)
        case "regex":
            return any(_finds(value, name) for name in names)


def _finds(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:  # the engine's patterns are not all Python's
        return True


def _may_be_undeclared(one: Mention, names: frozenset[str], known: Known) -> bool:
    """Whether a rule may mean a tool that an agent brings along and no manifest declares."""
    if one.grant:
        return False
    if one.kind == "server":
        return one.match == "is" and one.value == _UNDECLARED_SERVER
    if one.kind == "target":
        return one.value.startswith(f"{_UNDECLARED_SERVER}__")
    return one.kind == "tool" and known.undeclared != "deny" and _meant(one, names) is None


_SAID: dict[Kind, str] = {
    "agent": "No agent {value!r} is registered",
    "team": "No registered agent belongs to the team {value!r}",
    "tier": "No registered agent has the tier {value!r}",
    "use case": "No registered agent has the use case {value!r}",
    "target": "There is no tool or model {value!r}",
    "server": "No manifest in the tool registry describes a server {value!r}",
    "tool": "No manifest in the tool registry declares a tool {value!r}",
    "model": "There is no model alias {value!r}",
    "provider": "There is no provider {value!r}",
    "group": "The group {value!r} is not declared",
}
_LIKE: dict[Match, str] = {
    "starts": "starting with",
    "ends": "ending in",
    "holds": "containing",
    "glob": "matching",
    "regex": "matching",
}
_ADD: dict[Kind, str] = {
    "agent": "Correct the name, or register the agent.",
    "team": "Correct the name, or register an agent of this team.",
    "tier": "Correct the name, or register an agent of this tier.",
    "use case": "Correct the name, or register an agent with this use case.",
    "target": "Correct the name; tools are written server__tool, as `gateway tools list` shows them.",
    "server": "Correct the name, or add a manifest.",
    "tool": "Correct the name, or declare it in the server's manifest.",
    "model": "Correct the name, or add it to `models` in gateway.yaml.",
    "provider": "Correct the name, or add it to `providers` in gateway.yaml.",
    "group": "Add it to approvals.groups in gateway.yaml, or correct the name.",
}


def _message(one: Mention) -> str:
    said = _SAID[one.kind].format(value=one.value)
    if one.match != "is":
        what = "id of a tool or model" if one.kind == "target" else one.kind
        said = f"There is no {what} {_LIKE[one.match]} {one.value!r}"
    elif one.kind == "tool" and one.server is not None:
        said = f"The manifest of {one.server!r} declares no tool {one.value!r}"
    if one.kind == "server" and not one.grant:
        return f"{said}, so nothing ever matches rules about it."
    if one.kind == "group":
        return f"{said}, so what this rule escalates is denied."
    return f"{said}, so this grant has no effect." if one.grant else f"{said}, so nothing ever matches this."


def _mend(one: Mention, names: frozenset[str], known: Known) -> str:
    meant = _meant(one, names)
    mend = f"Did you mean {meant!r}?" if meant is not None else _ADD[one.kind]
    return f"{mend} {_UNSEEN}" if one.kind in _OF_AGENTS and not known.agents_complete else mend


def _meant(one: Mention, names: frozenset[str]) -> str | None:
    if one.match != "is":
        return None
    ordered = sorted(names)
    if one.kind == "target":  # the bare name, or the name that another gateway would give it
        bare = [name for name in ordered if name.endswith(f"__{one.value}")]
        if bare:
            return bare[0]
    if one.kind == "tool" and "__" in one.value:
        own = one.value.split("__", 1)[1]
        return own if own in names else suggest(own, ordered)
    return suggest(one.value, ordered)
