"""Which paths one server may use, and what speaks against that.

A rule allows a whole hierarchy and nothing below it can be taken out again. So a folder that the server may write, or
that its manifest names, must not hold a secret: that is a conflict, found by `gateway check` and again before each
start. Of folders that every server gets (the system's, its interpreter's), the parts that hold secrets are left out.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import gateway
from gateway.upstreams.confinement import program
from gateway.upstreams.confinement.landlock import DEVICE, READ, WRITE, Rule
from gateway.upstreams.confinement.program import Reader

CODE = tuple({Path(gateway.__file__).resolve().parent, Path(sysconfig.get_path("purelib")).resolve()})
"""The gateway's own code: a server that could change it would run unconfined at the next start."""


class Guarded(NamedTuple):
    """Paths that no server gets: `secret` ones are neither read nor written, `fixed` ones are not written."""

    secret: tuple[Path, ...] = ()
    fixed: tuple[Path, ...] = ()


class Wanted(NamedTuple):
    """What a manifest asks for; its references are resolved and its paths absolute."""

    server: str
    command: tuple[str, ...]
    env: Mapping[str, str] = MappingProxyType({})
    cwd: Path | None = None
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()


class Conflict(NamedTuple):
    """Why a server can't be confined as its manifest asks. `place` is in its `transport`."""

    place: tuple[str | int, ...]
    message: str
    advice: str


def conflicts(wanted: Wanted, guarded: Guarded) -> Iterator[Conflict]:
    """All that speaks against starting a server with what its manifest asks for."""
    asked: list[tuple[tuple[str | int, ...], Path, bool]] = []
    if wanted.cwd is not None:
        asked.append((("cwd",), wanted.cwd, True))
    asked += [(("paths", "read", index), path, False) for index, path in enumerate(wanted.read)]
    asked += [(("paths", "write", index), path, True) for index, path in enumerate(wanted.write)]
    for place, path, writes in asked:
        yield from _conflict(place, path, writes, guarded)


def uncovered(wanted: Wanted) -> Iterator[tuple[int, Path]]:
    """Words of the command that name a folder which the server may not use: a manifest of before it was confined."""
    allowed = [path for path in (wanted.cwd, *wanted.read, *wanted.write, *program.SYSTEM) if path is not None]
    for index, word in enumerate(wanted.command[1:], 1):
        path = Path(word)
        if path.is_absolute() and path.is_dir() and not any(_real(path).is_relative_to(_real(one)) for one in allowed):
            yield index, path


def rules(
    wanted: Wanted, executable: Path, search_path: str, own: Iterable[Path], guarded: Guarded, reader: Reader
) -> list[Rule]:
    """The allow-list of a server that runs as `reader`; `own` are folders that it has to itself."""
    writable = [*own, *wanted.write, *([] if wanted.cwd is None else [wanted.cwd])]
    changeable = tuple(map(_real, writable))
    readable = {*program.SYSTEM, *program.KERNEL, *program.public_configuration(reader)}
    readable |= program.folders_of(executable, search_path, lambda path: _leads_through(path, changeable))
    for path in map(Path, wanted.command[1:]):
        if path.is_absolute() and path.is_file() and not _leads_through(path, changeable):
            readable |= {program.package_of(path), program.package_of(_real(path))}
    secret = tuple(map(_real, guarded.secret))
    found: dict[Rule, None] = {}
    for path in sorted(_real(one) for one in readable):
        found.update(dict.fromkeys((str(part), READ) for part in _without(path, secret)))
    found.update(dict.fromkeys((str(path), DEVICE) for path in program.DEVICES))
    for kind, paths in ((READ, wanted.read), (WRITE, writable)):
        # One inside a folder that the server writes is its own already, and may by now be a link to anything.
        named = (path for path in paths if not _leads_through(path.parent, changeable))
        found.update(dict.fromkeys((str(_real(path)), kind) for path in named))
    return list(found)


def _conflict(place: tuple[str | int, ...], path: Path, writes: bool, guarded: Guarded) -> Iterator[Conflict]:
    what = "The working folder" if place == ("cwd",) else "The path"
    if not path.exists():
        yield Conflict(place, f"{what} {path} does not exist.", "Create it, or correct it.")
        return
    for one in guarded.secret:
        if _overlap(path, one):
            yield Conflict(
                place,
                f"{what} {path} {_how(path, one)} {one}, which holds secrets of the gateway, so the server would have"
                " them too.",
                "Give the server another folder, or move the gateway's: GATEWAY_DATA_DIR, GATEWAY_KEYS_DIR, file:"
                " references.",
            )
            return
    for one in (*guarded.fixed, *CODE) if writes else ():
        if _overlap(path, one):
            yield Conflict(
                place,
                f"{what} {path} {_how(path, one)} {one}, by which the gateway runs, so the server could change what"
                " confines it.",
                "Give the server another folder, or let it only read (paths.read).",
            )
            return


def _overlap(one: Path, other: Path) -> bool:
    one, other = _real(one), _real(other)
    return one.is_relative_to(other) or other.is_relative_to(one)


def _how(path: Path, other: Path) -> str:
    return "is" if _real(path) == _real(other) else "contains" if _real(other).is_relative_to(_real(path)) else "is in"


def _leads_through(path: Path, folders: tuple[Path, ...]) -> bool:
    """Whether something in one of the folders, which are real paths, decides where `path` leads."""
    steps = {_real(step) for step in (path, *path.parents)}
    return any(step.is_relative_to(folder) for step in steps for folder in folders)


def _without(path: Path, secret: tuple[Path, ...]) -> Iterator[Path]:
    """`path` itself, or the parts of it that hold nothing secret."""
    if any(path.is_relative_to(one) for one in secret):
        return
    if not any(one.is_relative_to(path) for one in secret):
        yield path
        return
    try:
        inside = sorted(path.iterdir())
    except OSError:
        return
    for part in inside:
        if not part.is_symlink():
            yield from _without(part, secret)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
