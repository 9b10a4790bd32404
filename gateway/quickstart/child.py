"""A server program as a child process: started until it answers, ended orderly or as by a crash, and paused.

It ends when this process ends, also where that was killed. For `make replicas`, drills and tests on Linux; nothing
that serves imports this.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from gateway.errors import Refusal
from gateway.process import child_environment

START_S = 60.0  # a slow machine, or a database that recovers from a crash
_GONE_S = 10.0
_LOOK_S = 0.02
_LEAST_PORT = 15_000

# A shell that waits for the end of its input, which comes with our own end however that came, and then ends the
# server. Its children first go on: PostgreSQL waits for those, and a paused one would never end.
_WATCH = """read -r _
for stat in /proc/[0-9]*/stat; do
    read -r pid _ _ parent _ < "$stat" && [ "$parent" = "$0" ] && kill -CONT "$pid"
done
kill -CONT "$0" && kill -INT "$0"
"""


def free_port() -> int:
    """A port of 127.0.0.1 that is free now, below those that the kernel gives to clients.

    Of those, a client might take the port while its server is down, or meet itself on it: a connection to a port of
    that range may come to be from the very same port.
    """
    below = 32_768
    with contextlib.suppress(OSError, ValueError):
        below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    choose = random.SystemRandom()
    for port in (choose.randrange(_LEAST_PORT, max(below, _LEAST_PORT + 1000)) for _ in range(1000)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise Refusal("internal", "No free port was found on 127.0.0.1; end what holds thousands of them.")


def check_free(port: int, instead: str) -> None:
    """Raises Refusal, with `instead` as what to do, where something listens on the port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was only just closed is free
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used ({error.strerror})"
            raise Refusal("internal", f"Port {port} of 127.0.0.1 {why}; {instead}.") from error


class Server:
    """One server of one program, with a port and a folder of its own; both stay the same when it starts again.

    `folder` gets its data, its settings and, as a log with its name, what it says.
    """

    name = "server"  # in sentences and in the name of the log
    stops_by = signal.SIGTERM  # what makes it end without waiting for its clients
    stop_s = 30.0  # how long it may take to end orderly

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder.absolute()
        self.port = free_port() if port is None else port
        self.log = self.folder / f"{self.name.lower()}.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def runs(self) -> bool:
        """Whether its process is there, paused or not."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._child.pid if self._child is not None and self.runs else None

    def start(self) -> None:
        """Start it and wait until it answers; nothing if it runs. Raises Refusal if it does not come up."""
        if self.runs:
            return
        self.launch()
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Start it, and wait for nothing. Raises Refusal if it can't be."""
        self._clear()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = self._prepare()
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - a program that we found, words of ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",  # also where another user runs it, to whom our own folder may be closed
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is for us, and we end it in order
            )
        self._watcher = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", _WATCH, str(self._child.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
        )

    def stop(self) -> None:
        """End it orderly; what it holds is on disk. Killed if that takes longer than `stop_s`."""
        if self._child is not None and self.runs:
            self.resume()
            self._child.send_signal(self.stops_by)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(self.stop_s)
        self.kill()

    def kill(self) -> None:
        """End it and its children at once, as a crash does. They are gone when this returns."""
        if self._child is not None:
            children = self._children()
            self._child.kill()
            self._child.wait()
            for pid in children:
                _signal(pid, signal.SIGKILL)
            ends_s = time.monotonic() + _GONE_S
            while any(map(_is_alive, children)) and time.monotonic() < ends_s:
                time.sleep(_LOOK_S)
        self._clear()

    def pause(self) -> None:
        """Stop its clock: connections stay open and nothing answers."""
        if (pid := self.pid) is not None:
            for one in (pid, *self._children()):  # the first makes no more of the others
                _signal(one, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        if (pid := self.pid) is not None:
            for one in (*self._children(), pid):
                _signal(one, signal.SIGCONT)

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def _prepare(self) -> list[str]:
        """Make its folder ready; the command that starts it."""
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        """The environment that it runs in."""
        return child_environment()

    def answers(self) -> bool:
        """Whether it does its work for clients now."""
        raise NotImplementedError

    def _wait(self) -> None:
        ends_s = time.monotonic() + START_S
        while time.monotonic() < ends_s and self.runs:
            if self.answers():
                return
            time.sleep(_LOOK_S)
        how = f"did not answer within {START_S:g} s" if self.runs else "ended while it started"
        raise Refusal("internal", self.failing(how))

    def failing(self, how: str) -> str:
        """A sentence of how it fails, with the end of its log."""
        said = " ".join(self.log.read_text(errors="replace").split())[-400:]
        return f"{self.name} {how}; {self.log} says: {said or 'nothing'}"

    def _children(self) -> list[int]:
        """The processes that its process made; PostgreSQL has one for each connection."""
        if (pid := self.pid) is None:
            return []
        stats = Path("/proc").glob("[0-9]*/stat")
        return [int(stat.parent.name) for stat in stats if _state(stat)[1] == str(pid)]

    def _clear(self) -> None:
        """Forget a process that has ended, and the shell that watches over it."""
        self._child = None
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.wait()
            assert self._watcher.stdin is not None
            self._watcher.stdin.close()
            self._watcher = None


def _state(stat: Path) -> list[str]:
    """The state of a process, then its parent, from its file in /proc; state X where it is gone."""
    try:
        return stat.read_text().rpartition(")")[2].split()[:2]  # the name before it stands in brackets
    except OSError:
        return ["X", ""]


def _is_alive(pid: int) -> bool:
    """Whether it may still hold anything: one that only waits for whoever takes note of its end does not."""
    return _state(Path(f"/proc/{pid}/stat"))[0] not in ("X", "Z")


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
