"""The program between the gateway and a tool server: confines itself, then executes the server in its place.

It gets its orders on standard input, before anything that is for the server, so that the server's environment never
stands in a command line or in an environment under which this program runs. `argv[-1]` names a descriptor on which it
says why it failed; the kernel closes that once the server runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from gateway.upstreams.confinement import landlock, privileges

HEAD_BYTES = 8
"""The orders begin with their length in this many bytes, most significant first."""
FAILED = 126  # as a shell says it of a program that can't be executed


def main() -> None:
    """Confine this process and execute the server; returns never."""
    said = int(sys.argv[-1])
    os.set_inheritable(said, False)
    try:
        orders = _read_orders()
        _confine(orders)
        _close_others(said)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and an exec would hand on
            signal.signal(number, signal.SIG_DFL)
        os.execve(orders["program"], orders["command"], orders["env"])  # noqa: S606 - that is what it is for
    except OSError as error:
        _fail(said, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except (ValueError, KeyError, TypeError) as error:
        _fail(said, f"its launcher failed ({type(error).__name__})")


def _confine(orders: dict[str, Any]) -> None:
    ruleset = None
    if orders["landlock"]:
        # While every path can still be opened; what a rule names needs not be open to the server's user.
        ruleset = landlock.Ruleset(orders["landlock"])
        ruleset.allow(orders["rules"])
        ruleset.allow([(f"/proc/{os.getpid()}", landlock.READ)])  # of this process, which will be the server
    privileges.limit()
    if orders["user"] is not None:
        privileges.become(*orders["user"])
    os.chdir(orders["cwd"])
    privileges.drop()
    if ruleset is not None:
        ruleset.enforce()


def _read_orders() -> dict[str, Any]:
    orders: dict[str, Any] = json.loads(_read(int.from_bytes(_read(HEAD_BYTES), "big")))
    return orders


def _read(count: int) -> bytes:
    """Exactly so many bytes, unbuffered: what follows is for the server."""
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            raise ValueError("the orders end too early")
        data += piece
    return data


def _close_others(said: int) -> None:
    os.closerange(3, said)
    os.closerange(said + 1, os.sysconf("SC_OPEN_MAX"))


def _fail(said: int, why: str) -> None:
    os.write(said, why.encode("utf-8", "replace")[:1000])
    os._exit(FAILED)
