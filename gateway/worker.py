"""One worker: a replica that shares a socket with others, started by `gateway.workers`.

Owns: its end of the line to the supervisor, and a listener of its own on 127.0.0.1, by which it alone is reached. Ends
orderly, as by SIGTERM, once the supervisor is gone, however that ended: the kernel closes the other end of the line.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import msgspec

from gateway import environment
from gateway.app import App
from gateway.errors import Refusal
from gateway.identity.registry import OPERATOR_TOKEN
from gateway.process import Process
from gateway.process import load as load_process
from gateway.serve import AmongWorkers, listen, serve

LOOPBACK = "127.0.0.1"
SERVES = b"."
"""What a worker says on its line once it takes requests."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told beside its environment. `listening` and `line` are descriptors that it inherits."""

    number: int
    listening: int
    line: int
    common_dir: str
    config: str
    host: str
    own_port: int
    """Where this worker alone listens; 0 takes a free one."""


def folder_of(common_dir: Path, number: int) -> Path:
    """The data directory of one worker, below the one that all share."""
    return common_dir / f"worker-{number}"


def main(given: list[str]) -> int:
    """Serve until told to stop, or until the supervisor is gone; the exit code."""
    environment.take()
    environment.forbid_inspection()
    orders = msgspec.json.decode(given[0], type=Orders)
    line = _inherited(orders.line)
    listening = _inherited(orders.listening)
    threading.Thread(target=_end_with, args=(line,), name="supervisor", daemon=True).start()
    found, problems = load_process()
    if found is None:
        return _failed("; ".join(str(one) for one in problems))
    try:
        _serve(orders, found, line, listening)
    except Refusal as refusal:
        return _failed(refusal.message)
    except OSError as error:
        return _failed(
            f"{error.filename or 'The system'}: {error.strerror or error}; check the path and its permissions."
        )
    except Exception as error:
        if found.log_level == "debug":
            raise
        # Not the error's text: it may quote what it was about, a key or a password.
        return _failed(
            f"A fault of worker {orders.number} ({type(error).__name__}); GATEWAY_LOG_LEVEL=debug shows where, please"
            " report it."
        )
    return 0


def _serve(orders: Orders, found: Process, line: socket.socket, listening: socket.socket) -> None:
    common_dir = Path(orders.common_dir)
    place = {
        "data_dir": folder_of(common_dir, orders.number),
        "config": Path(orders.config),
        "host": orders.host,
        "keys_dir": found.keys_dir or common_dir / "keys",
    }
    among = AmongWorkers(
        listening=listening,
        own=listen(LOOPBACK, orders.own_port, option="GATEWAY_WORKERS_PORT"),
        operator_token=(common_dir / OPERATOR_TOKEN).read_text().strip(),
        common_dir=common_dir,
    )

    async def tell(_app: App, _url: str) -> None:
        with contextlib.suppress(OSError):  # nobody hears it any more; `_end_with` knows
            line.send(SERVES)

    serve(found.model_copy(update=place), on_ready=tell, among=among)


def _end_with(line: socket.socket) -> None:
    """Wait for the supervisor's end: it never says anything, so what comes is the end of the line."""
    with contextlib.suppress(OSError):
        line.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _inherited(descriptor: int) -> socket.socket:
    """A socket that we were given; not for the tool servers that are started as our children."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def _failed(sentence: str) -> int:
    sys.stderr.write(f"gateway: {sentence}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
