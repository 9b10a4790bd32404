"""Starts a server's program through the launcher, and waits until the program runs in the launcher's place."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import sys
from asyncio.subprocess import SubprocessStreamProtocol
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gateway
from gateway.upstreams.confinement import folders, plan, program
from gateway.upstreams.confinement.folders import Folders
from gateway.upstreams.confinement.launcher import HEAD_BYTES
from gateway.upstreams.confinement.plan import Guarded, Wanted
from gateway.upstreams.confinement.program import Reader
from gateway.upstreams.confinement.support import Mode, Support

_BUFFER_BYTES = 256 * 1024
# Isolated and without site-packages: nothing that a server can write is imported before it is confined.
_LAUNCHER = "import sys; sys.path.append(sys.argv[1]); from gateway.upstreams.confinement.launcher import main; main()"
_CODE = str(Path(gateway.__file__).resolve().parents[1])


User = tuple[int, int, list[int]]
"""A user, its group and further groups, as numbers."""


class NotStarted(Exception):  # noqa: N818 - a state of the world, not a fault of ours
    """The program does not run; the message is a clause that says why."""


class How(NamedTuple):
    """How a server is started. `homes` has a folder for each; `user` is one that this system knows."""

    mode: Mode
    user: str | None
    homes: Path
    guarded: Guarded
    support: Support


class Started(NamedTuple):
    """A program that runs, and what it has to itself."""

    process: asyncio.subprocess.Process
    transport: asyncio.SubprocessTransport
    folders: Folders | None

    async def remove_folders(self) -> None:
        """Remove what the program must not leave behind, once it has ended."""
        if self.folders is not None:
            await asyncio.to_thread(self.folders.remove)


async def start(wanted: Wanted, base: Mapping[str, str], how: How) -> Started:
    """Start a program, confined as `how` says, with the environment `base` and its own. Raises NotStarted."""
    if how.mode == "off" and how.user is None:
        return await _spawn(wanted.command, {**base, **wanted.env}, wanted.cwd, None)
    if how.mode == "required" and how.support.shortfall is not None:
        raise NotStarted(f"it must be confined (`confinement: required`), and {how.support.shortfall}")
    try:
        orders, own = await asyncio.to_thread(_prepare, wanted, base, how)
    except OSError as error:
        raise NotStarted(f"its folders can't be made ({_clause(error)})") from None
    reading, writing = os.pipe()
    started: Started | None = None
    try:
        try:
            words = (sys.executable, "-I", "-S", "-c", _LAUNCHER, _CODE, str(writing))
            started = await _spawn(words, {}, Path("/"), own, pass_fds=(writing,))
        finally:
            os.close(writing)
        assert started.process.stdin is not None
        started.process.stdin.write(len(orders).to_bytes(HEAD_BYTES, "big") + orders)
        failure = await _said(reading)
        if failure:
            raise NotStarted(f"it can't be started ({failure})")
    except BaseException:
        if started is not None:
            with contextlib.suppress(ProcessLookupError):
                started.process.kill()
            await started.process.wait()
            started.transport.close()
        await asyncio.to_thread(own.remove)
        raise
    finally:
        os.close(reading)
    return started


def _prepare(wanted: Wanted, base: Mapping[str, str], how: How) -> tuple[bytes, Folders]:
    """The launcher's orders, and the folders that were made for them. Raises NotStarted, OSError."""
    for conflict in plan.conflicts(wanted, how.guarded):
        raise NotStarted(f"it can't be confined: {conflict.message} {conflict.advice}".rstrip("."))
    user = None if how.user is None else _user(how.user)
    own = folders.make(how.homes, wanted.server, None if user is None else (user[0], user[1]))
    try:
        return json.dumps(_orders(wanted, base, how, own, user)).encode("ascii"), own
    except BaseException:
        own.remove()
        raise


def _orders(wanted: Wanted, base: Mapping[str, str], how: How, own: Folders, user: User | None) -> dict[str, Any]:
    temporary = dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(own.temporary))
    environ = {**base, "HOME": str(own.home), **temporary, **wanted.env}
    cwd, path = wanted.cwd or own.home, environ.get("PATH", os.defpath)
    executable = program.find(wanted.command[0], cwd, path)
    if executable is None:
        raise NotStarted(f"it can't be started (there is no program {wanted.command[0]})")
    reader = Reader(os.geteuid(), frozenset((os.getegid(), *os.getgroups())))
    if user is not None:
        reader = Reader(user[0], frozenset((user[1], *user[2])))
    return {
        "program": str(executable),
        "command": wanted.command,
        "env": environ,
        "cwd": str(cwd),
        "user": user,
        "landlock": 0 if how.mode == "off" else how.support.landlock,
        "rules": plan.rules(wanted, executable, path, (own.home, own.temporary), how.guarded, reader),
    }


def _user(name: str) -> User | None:
    """The user of that name; None if it is ours. Raises NotStarted."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise NotStarted(f"this system has no user {name}; correct `user`") from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise NotStarted(f"only a gateway that runs as root can start it as the user {name}")
    return entry.pw_uid, entry.pw_gid, os.getgrouplist(name, entry.pw_gid)


async def _spawn(
    words: tuple[str, ...], env: dict[str, str], cwd: Path | None, own: Folders | None, pass_fds: tuple[int, ...] = ()
) -> Started:
    loop = asyncio.get_running_loop()
    try:
        # Not by create_subprocess_exec, which hides the transport: only closing that frees a pipe that something the
        # child left behind still holds open.
        transport, protocol = await loop.subprocess_exec(
            lambda: SubprocessStreamProtocol(limit=_BUFFER_BYTES, loop=loop),
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise NotStarted(f"it can't be started ({_clause(error)})") from None
    return Started(asyncio.subprocess.Process(transport, protocol, loop), transport, own)


async def _said(reading: int) -> str:
    """What the launcher says before it ends, '' if it was replaced by the program."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    os.set_blocking(reading, False)
    said = b""
    loop.add_reader(reading, ready.set)
    try:
        while True:
            await ready.wait()
            ready.clear()
            with contextlib.suppress(BlockingIOError):
                piece = os.read(reading, 4096)
                if not piece:
                    return said.decode("utf-8", "replace")
                said += piece
    finally:
        loop.remove_reader(reading)


def _clause(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or "its command can't be run"
