"""What a server's program needs to be able to start: the system's own folders, and where its interpreter lives.

Finds the interpreter behind a script's first line, the virtual environment and the base installation behind a Python,
and the packages behind a Node. Everything else that a server reads stands in its manifest.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SYSTEM = tuple(map(Path, ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")))
"""Programs and libraries of the system, read and executed by everybody."""
KERNEL = tuple(
    map(
        Path,
        (
            *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/uptime", "/proc/version"),
            *("/proc/filesystems", "/proc/sys", "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm"),
            "/var/lib/ca-certificates",
        ),
    )
)
"""What runtimes ask the kernel about the machine; nothing about other processes."""
DEVICES = tuple(map(Path, ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")))

_ETC = Path("/etc")
_SHEBANG_BYTES = 256
_MOST_HOPS = 40  # of symbolic links and interpreters


def find(word: str, cwd: Path, path: str) -> Path | None:
    """The file that a command's first word means; not resolved, since a Python finds its environment by its name."""
    if "/" in word:
        found = Path(os.path.normpath(cwd / word))
        return found if found.is_file() and os.access(found, os.X_OK) else None
    named = shutil.which(word, path=path)
    return None if named is None else Path(named).absolute()


def folders_of(program: Path, path: str, is_changeable: Callable[[Path], bool]) -> set[Path]:
    """The files and folders that a program is read and executed from, beside those of the system.

    What `is_changeable` by the server is not followed: its first line or a link in it could name anything by now.
    """
    found: set[Path] = set()
    waiting, seen = [program], set[Path]()
    while waiting and len(seen) < _MOST_HOPS:
        one = waiting.pop()
        if one in seen or is_changeable(one):
            continue
        seen.add(one)
        found |= _around(one)
        waiting += _behind(one, path)
    return found


def package_of(script: Path) -> Path:
    """What a script is read with: the outermost `node_modules` that it lies in, else only itself."""
    inside = [parent for parent in script.parents if parent.name == "node_modules"]
    return inside[-1] if inside else script


class Reader(NamedTuple):
    """The user as whom a server runs, without any capability."""

    user: int
    groups: frozenset[int]

    def may(self, found: os.stat_result, everybody: int) -> bool:
        """Whether this user can have what `everybody` says in bits of others; an owner can, who may change the mode."""
        bits = everybody << 3 if found.st_gid in self.groups else everybody
        return found.st_uid == self.user or found.st_mode & bits != 0


def public_configuration(reader: Reader) -> Iterator[Path]:
    """What lies in /etc, such as name resolution, certificates and locales, without what `reader` could read there and
    not every user can. Where there is no such thing, that is /etc itself, and files may be replaced."""
    with contextlib.suppress(OSError), os.scandir(_ETC) as entries:
        inside = list(entries)
        yield from _public_parts(_ETC, inside, reader)
        for entry in inside:
            if entry.is_symlink():
                yield from _target(Path(entry.path))


def _target(link: Path) -> Iterator[Path]:
    """Where a link of /etc leads, if that is a public file; links to folders, as to data of a program, are left out."""
    with contextlib.suppress(OSError, RuntimeError):
        target = link.resolve(strict=True)
        if target.is_file() and target.stat().st_mode & stat.S_IROTH:
            # resolv.conf is replaced whenever the network changes.
            yield target.parent if link.name == "resolv.conf" and target.is_relative_to("/run") else target


def _public_parts(folder: Path, inside: list[os.DirEntry[str]], reader: Reader) -> list[Path]:
    """`folder`, if nothing in it is for `reader` and not for everybody; else its parts of which that holds."""
    entries = [entry for entry in inside if not entry.is_symlink()]  # where links lead has rules of its own
    parts = [_public(entry, reader) for entry in entries]
    if parts == [[Path(entry.path)] for entry in entries]:
        return [folder]
    return list(itertools.chain.from_iterable(parts))


def _public(entry: os.DirEntry[str], reader: Reader) -> list[Path]:
    is_folder = entry.is_dir(follow_symlinks=False)
    everybody = stat.S_IROTH | stat.S_IXOTH if is_folder else stat.S_IROTH
    try:
        found = entry.stat(follow_symlinks=False)
        if found.st_mode & everybody != everybody:
            return [] if reader.may(found, everybody) else [Path(entry.path)]  # closed to it anyway
        if not is_folder:
            return [Path(entry.path)]
        with os.scandir(entry.path) as entries:
            return _public_parts(Path(entry.path), list(entries), reader)
    except OSError:
        return []


def _around(program: Path) -> set[Path]:
    """What belongs to an installation of which `program` is one, itself included."""
    found = {package_of(program)}
    if program.parent.name not in ("bin", "sbin"):
        return found
    prefix = program.parent.parent
    found.add(program.parent)
    if (prefix / "pyvenv.cfg").is_file():
        found.add(prefix)
    else:
        library = prefix / "lib"
        if any(library.glob("python3*")) or any(library.glob("libpython3*")):
            found.add(library)
        elif (library / "node_modules").is_dir():
            found.add(library / "node_modules")
    return found


def _behind(program: Path, path: str) -> Iterator[Path]:
    """Where a link leads, what interprets a script, and the Python that a virtual environment was made from."""
    if program.is_symlink():
        yield Path(os.path.normpath(program.parent / program.readlink()))
    base = _base_python(program.parent.parent / "pyvenv.cfg")
    if base is not None:
        yield base
    yield from _interpreter(program, path)


def _base_python(description: Path) -> Path | None:
    try:
        lines = description.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == "home":
            return next((python for python in Path(value.strip()).glob("python3*") if python.is_file()), None)
    return None


def _interpreter(program: Path, path: str) -> Iterator[Path]:
    try:
        with program.open("rb") as file:
            first = file.read(_SHEBANG_BYTES).split(b"\n", 1)[0]
    except OSError:
        return
    if not first.startswith(b"#!"):
        return
    words = os.fsdecode(first[2:]).split()
    if not words:
        return
    yield Path(words[0])
    if Path(words[0]).name == "env":
        for word in words[1:]:
            if not word.startswith("-") and "=" not in word:
                named = shutil.which(word, path=path)
                if named is not None:
                    yield Path(named).absolute()
                return
