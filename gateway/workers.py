"""Several processes on one machine: one that listens and starts the others anew, and workers that share its socket.

Each worker is a replica like any other, with a data directory of its own below the common one. Owns: the socket, the
local operator's token and the note by which the command line finds the gateway. Never does: serve a request itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import msgspec
import structlog

from gateway.errors import Refusal
from gateway.identity.registry import OPERATOR_TOKEN, new_operator_token
from gateway.process import Process
from gateway.process import load as load_process
from gateway.serve import NOTE, listen, serve, shown

log = structlog.get_logger("gateway.workers")

_AGAIN_S = 1.0  # a worker that ended is started anew after this
_STEP_S = 0.1
_BEYOND_GRACE_S = 15.0


class _Worker:
    def __init__(self, number: int, process: Process, listening: socket.socket) -> None:
        self.number = number
        self.data_dir = process.data_dir / f"worker-{number}"
        self._process = process
        self._listening = listening
        self.child: subprocess.Popen[bytes] | None = None
        self.again_s = 0.0

    def start(self) -> None:
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        process = self._process
        command = [sys.executable, "-m", "gateway.workers", str(self._listening.fileno()), str(self.data_dir)]
        command += [str(process.config), process.host, str(self._listening.getsockname()[1])]
        self.child = subprocess.Popen(  # noqa: S603 - our own module
            command, pass_fds=(self._listening.fileno(),), start_new_session=True
        )


def supervise(process: Process, count: int) -> int:
    """Run `count` workers until told to stop; the exit code. SIGHUP is handed on, SIGTERM and SIGINT stop all."""
    process.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    listening = listen(process.host, process.port)
    listening.set_inheritable(True)
    new_operator_token(process.data_dir)
    port: int = listening.getsockname()[1]
    url = f"http://{shown(process.host)}:{port}"
    workers = [_Worker(number, process, listening) for number in range(1, count + 1)]
    stopping = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        stopping.set()
        _tell(workers, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, lambda number, _frame: _tell(workers, number))
    for worker in workers:
        worker.start()
    note = process.data_dir / NOTE
    note.write_bytes(msgspec.json.encode({"url": url, "pid": os.getpid()}))
    log.info("workers", count=count, url=url)
    try:
        while not stopping.wait(_STEP_S):
            _start_again(workers)
        return _ended(workers)
    finally:
        note.unlink(missing_ok=True)
        for worker in workers:
            if worker.child is not None and worker.child.poll() is None:
                worker.child.kill()


def _start_again(workers: list[_Worker]) -> None:
    now_s = time.monotonic()
    for worker in workers:
        child = worker.child
        if child is not None and child.poll() is not None:
            log.error("worker_ended", worker=worker.number, code=child.returncode)
            worker.child, worker.again_s = None, now_s + _AGAIN_S
        if worker.child is None and now_s >= worker.again_s:
            worker.start()


def _tell(workers: list[_Worker], number: int) -> None:
    for worker in workers:
        if worker.child is not None:
            with contextlib.suppress(ProcessLookupError):
                worker.child.send_signal(number)


def _ended(workers: list[_Worker]) -> int:
    """Wait for all; each has its own grace, and none gets more than that and a little."""
    deadline_s = time.monotonic() + 300 + _BEYOND_GRACE_S
    codes = []
    for worker in workers:
        if worker.child is not None:
            try:
                codes.append(worker.child.wait(max(0.0, deadline_s - time.monotonic())))
            except subprocess.TimeoutExpired:
                codes.append(1)
    return 1 if any(codes) else 0


def main(given: list[str]) -> int:
    """One worker: socket, data directory, configuration, host and port, as `supervise` passes them."""
    fd, data_dir, config, host, port = given
    found, problems = load_process()
    if found is None:
        sys.stderr.write("; ".join(str(one) for one in problems) + "\n")
        return 2
    place = {"data_dir": Path(data_dir), "config": Path(config), "host": host, "port": int(port)}
    token = (Path(data_dir).parent / OPERATOR_TOKEN).read_text().strip()
    keys_dir = found.keys_dir or Path(data_dir).parent / "keys"
    process = found.model_copy(update={**place, "keys_dir": keys_dir})
    try:
        serve(process, listening=socket.socket(fileno=int(fd)), operator_token=token)
    except Refusal as refusal:
        sys.stderr.write(refusal.message + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
