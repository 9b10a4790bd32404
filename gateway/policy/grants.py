"""The grants (`data.grants`, usually policies/grants/data.yaml): shape and values, and the names they mention.

A grant with a typing error grants nothing, or denies with a fault, and says neither. So its shape is checked when the
policies are loaded. Fields that rules of the folder read themselves are the folder's own, and are left alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from gateway.documents import suggest
from gateway.policy.compared import WORDS
from gateway.policy.known import Kind, Mention
from gateway.policy.own_fields import OwnFields
from gateway.policy.places import Path

ROOT: Final = "grants"
RISKS: Final = WORDS["target", "risk"]
UNATTENDED: Final = ("read", "write", "egress")
_HOLDERS: Final[dict[str, tuple[str, Kind]]] = {
    "agents": ("the agent", "agent"),
    "teams": ("the team", "team"),
    "tiers": ("the tier", "tier"),
}
SECTIONS: Final = tuple((section,) for section in _HOLDERS)
_OF_HOLDER: Final = ("models", "servers")
_OF_SERVER: Final = ("max_risk", "tools", "unattended")
_FIELDS: Final = frozenset((*_OF_HOLDER, *_OF_SERVER))
_EXAMPLE: Final = "{max_risk: low}"


class Fault(NamedTuple):
    """Something wrong with a value of the data: its path below `data`, what, and what to do."""

    path: Path
    message: str
    mend: str


def check(grants: Any, own: OwnFields) -> Iterator[Fault]:
    """What is wrong with shape and values. `own` are fields that rules of the folder read, whatever they mean."""
    if not isinstance(grants, dict):
        yield Fault((ROOT,), "The grants are not a mapping.", "Write `agents:`, `teams:` and `tiers:`.")
        return
    for name, holders in grants.items():
        path: Path = (ROOT, name)
        if name not in _HOLDERS:
            if name == ROOT or name in _FIELDS or name not in own.root:
                yield Fault(path, f"Unknown key {name!r} in the grants.", _mend_of_root(name, holders))
        elif not isinstance(holders, dict):
            yield Fault(path, f"{name!r} must be a mapping of names to grants.", f"Write `{name}: {{}}` for none.")
        else:
            for holder, grant in holders.items():
                yield from _holder(grant, (*path, holder), f"{_HOLDERS[name][0]} {holder!r}", own.inner)


def mentions(grants: Any, place: Callable[[Path], tuple[str, int]]) -> Iterator[Mention]:
    """The names in grants, as far as these have the right shape. `place` says where the value at a path stands."""

    def mention(kind: Kind, value: str, path: Path, server: str | None = None) -> Mention:
        return Mention(kind, value, functools.partial(place, path), server=server, grant=True)

    for section, (_, kind) in _HOLDERS.items():
        for holder, grant in _items(_get(grants, section)):
            path: Path = (ROOT, section, holder)
            yield mention(kind, holder, path)
            for index, model in _listed(grant, "models"):
                yield mention("model", model, (*path, "models", index))
            for server, entry in _items(_get(grant, "servers")):
                yield mention("server", server, (*path, "servers", server))
                for index, tool in _listed(entry, "tools"):
                    yield mention("tool", tool, (*path, "servers", server, "tools", index), server)


def out_of_reach(grants: Any, risks: Mapping[str, str]) -> Iterator[Fault]:
    """Tools that a grant names although its own `max_risk` keeps them away. `risks` are by `server__tool`."""
    for section, (whose, _) in _HOLDERS.items():
        for holder, grant in _items(_get(grants, section)):
            for server, entry in _items(_get(grant, "servers")):
                highest = _get(entry, "max_risk")
                for index, tool in _listed(entry, "tools") if highest in RISKS else ():
                    risk = risks.get(f"{server}__{tool}")
                    if risk in RISKS and RISKS.index(risk) > RISKS.index(highest):
                        path: Path = (ROOT, section, holder, "servers", server, "tools", index)
                        message = (
                            f"{whose} {holder!r} does not get {server}__{tool}: its risk is {risk}, above max_risk."
                        )
                        yield Fault(path, message[0].upper() + message[1:], f"Write `max_risk: {risk}`, or remove it.")


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _listed(value: Any, key: str) -> Iterator[tuple[int, str]]:
    """The texts of a list, with their places; '*' stands for all."""
    listed = _get(value, key)
    for index, item in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(item, str) and item not in ("", "*"):
            yield index, item


def _items(value: Any) -> Any:
    return value.items() if isinstance(value, dict) else ()


def _mend_of_root(name: str, value: Any) -> str:
    if name == ROOT:
        return "The folder grants/ already stands for this key. Move what is below it up."
    close = suggest(name, _HOLDERS)
    if close is None and isinstance(value, dict) and value.keys() & {*_OF_HOLDER, *_OF_SERVER}:
        return "Put it under `agents:`, `teams:` or `tiers:`."
    return f"Did you mean {close!r}?" if close else f"Keys are: {', '.join(_HOLDERS)}."


def _holder(grant: Any, path: Path, whose: str, own: frozenset[str]) -> Iterator[Fault]:
    if not isinstance(grant, dict):
        yield Fault(path, f"The grant of {whose} must be a mapping.", "Write `{}` for none, or `models:`, `servers:`.")
        return
    moved = {field: f"It belongs to a server: servers.NAME.{field}." for field in _OF_SERVER}
    yield from _unknown(grant, path, f"grant of {whose}", _OF_HOLDER, moved, own)
    if "models" in grant:
        yield from _words(grant["models"], (*path, "models"), f"'models' of {whose}", "[demo]")
    if "servers" not in grant:
        return
    servers = grant["servers"]
    if not isinstance(servers, dict):
        example = servers[0] if isinstance(servers, list) and servers and isinstance(servers[0], str) else "NAME"
        example = servers if isinstance(servers, str) else example
        message = f"'servers' of {whose} must be a mapping of server names to grants."
        yield Fault((*path, "servers"), message, f"Write `servers: {{{example}: {_EXAMPLE}}}`.")
        return
    for server, entry in servers.items():
        yield from _server(entry, (*path, "servers", server), f"{whose} for the server {server!r}", own)


def _server(entry: Any, path: Path, whose: str, own: frozenset[str]) -> Iterator[Fault]:
    if path[-1] == "*":
        yield Fault(path, "'*' is not the name of a server.", "Name each server.")
    if not isinstance(entry, dict):
        yield Fault(path, f"The grant of {whose} must be a mapping.", f"Write `{_EXAMPLE}`.")
        return
    moved = {"models": "It belongs beside `servers`.", "servers": "Servers do not nest; list them side by side."}
    moved |= {"risk": "Did you mean 'max_risk'?", "effects": "Did you mean 'unattended'?"}
    unknown = list(_unknown(entry, path, f"grant of {whose}", _OF_SERVER, moved, own))
    yield from unknown
    if "max_risk" in entry:
        yield from _word(entry["max_risk"], (*path, "max_risk"), f"'max_risk' of {whose}", RISKS)
    elif not any("'max_risk'" in fault.mend for fault in unknown):
        message = f"The grant of {whose} has no 'max_risk', so it grants nothing."
        yield Fault(path, message, f"Add `max_risk:` with one of: {', '.join(RISKS)}.")
    if "tools" in entry:
        tools = (*path, "tools")
        yield from _words(entry["tools"], tools, f"'tools' of {whose}", "[NAME]")
        if isinstance(entry["tools"], list) and "*" in entry["tools"]:
            place = (*tools, entry["tools"].index("*"))
            yield Fault(place, "'*' is not the name of a tool.", "Leave `tools` out to grant all tools of the server.")
    if "unattended" in entry:
        effects = (*path, "unattended")
        yield from _words(entry["unattended"], effects, f"'unattended' of {whose}", "[read]", UNATTENDED)


def _unknown(
    value: Mapping[str, Any],
    path: Path,
    what: str,
    known: tuple[str, ...],
    moved: Mapping[str, str],
    own: frozenset[str],
) -> Iterator[Fault]:
    """Keys that nothing reads there. Those of another level are misplaced; the folder's rules may read others."""
    for key in value:
        if key in known or (key in own and key not in moved):
            continue
        if key in moved:
            mend = moved[key]
            wrong = f"{key!r} does not belong to the {what}." if "Did you" not in mend else _no_field(key, what)
            yield Fault((*path, key), wrong, mend)
            continue
        unused = [name for name in known if name not in value] or list(known)
        close = suggest(key, unused) or suggest(key, known)
        elsewhere = None if close else suggest(key, moved)
        mend = f"Did you mean {close!r}?" if close else f"Fields are: {', '.join(known)}."
        if elsewhere is not None and elsewhere in (*_OF_SERVER, *_OF_HOLDER):
            mend = f"Did you mean {elsewhere!r}? {moved[elsewhere]}"
        yield Fault((*path, key), _no_field(key, what), mend)


def _no_field(key: str, what: str) -> str:
    return f"Unknown field {key!r} in the {what}."


def _word(value: Any, path: Path, what: str, allowed: tuple[str, ...]) -> Iterator[Fault]:
    if value in allowed:
        return
    close = suggest(value, allowed) if isinstance(value, str) else None
    one_of = f"One of: {', '.join(allowed)}."
    mend = f"Did you mean {close!r}? {one_of}" if close else one_of
    if path[-2:-1] == ("unattended",) and value == "destructive":
        mend += " A destructive tool needs an `allow` rule."
    shown = repr(value) if isinstance(value, str | int) else "this value"
    yield Fault(path, f"{what} cannot be {shown}.", mend)


def _words(value: Any, path: Path, what: str, example: str, allowed: tuple[str, ...] | None = None) -> Iterator[Fault]:
    """A list of texts, of `allowed` ones where that is given."""
    if not isinstance(value, list):
        shown = f"[{value}]" if isinstance(value, str) and value else example
        yield Fault(path, f"{what} must be a list.", f"Write `{shown}`.")
        return
    for index, item in enumerate(value):
        if not isinstance(item, str) or not item:
            yield Fault((*path, index), f"{what} must hold names only.", "Put the value in quotes, or remove it.")
        elif allowed is not None:
            yield from _word(item, (*path, index), what, allowed)
