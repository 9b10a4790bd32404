"""Several processes on one machine: one that listens and starts the others anew, and workers that share its socket.

Each worker (`gateway.worker`) is a replica like any other, with a data directory of its own below the common one. Owns:
the common data directory, the socket, the local operator's token, and the note by which the command line finds the
gateway. Never does: serve a request itself.

A worker that never served is not tried again: what keeps it from starting keeps the next one too, so all end. One that
served before is started anew, after a pause that grows until it serves again. Workers bound their own ending
(`server.shutdown_grace_s`), so here nobody is killed.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import subprocess
import sys
import time

import msgspec
import structlog

from gateway import environment
from gateway.errors import Refusal
from gateway.identity.registry import new_operator_token
from gateway.process import Process
from gateway.serve import NOTE, listen, shown, write_note
from gateway.store import DirectoryLock
from gateway.telemetry import configure_logs
from gateway.worker import SERVES, Orders, folder_of

log = structlog.get_logger("gateway.workers")

_STEP_S = 0.1
_LONGEST_PAUSE_S = 30.0
_TOLD_TO_END = frozenset({0, -signal.SIGTERM})  # by the signal: one that did not listen for it yet
_LAST_PORT = 65_535


def supervise(process: Process, count: int) -> int:
    """Run `count` workers until told to stop; the exit code. SIGHUP is handed on, SIGTERM and SIGINT stop all.

    Raises Refusal where the data directory or the port belongs to somebody else, and then has touched nothing.
    """
    if process.workers_port + count - 1 > _LAST_PORT:
        raise Refusal(
            "conflict",
            f"There are no {count} ports from GATEWAY_WORKERS_PORT={process.workers_port} on; take a lower one.",
        )
    logs = configure_logs(process.log_level)
    try:
        with contextlib.ExitStack() as held:
            process.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.callback(DirectoryLock(process.data_dir).release)
            listening = held.enter_context(listen(process.host, process.port))
            new_operator_token(process.data_dir)
            return _Supervisor(process, count, listening).run()
    finally:
        logs.close()


def pause_s(failures: int) -> float:
    """How long to wait before a worker is started that ended `failures` times since it last served."""
    return float(min(2 ** min(failures - 1, 10), _LONGEST_PAUSE_S))


class _Worker:
    """One of them, whichever process it is now. Owns that process and our end of the line to it."""

    def __init__(self, number: int, process: Process, listening: socket.socket) -> None:
        self.number = number
        self.child: subprocess.Popen[bytes] | None = None
        self.has_served = False  # in any of its processes
        self.failures = 0  # since it last served
        self.again_s = 0.0
        self._process = process
        self._listening = listening
        self._line: socket.socket | None = None
        self._serves = False
        self._hung_up = False

    def start(self) -> None:
        """Start its process. Raises OSError where the system can't."""
        folder_of(self._process.data_dir, self.number).mkdir(mode=0o700, parents=True, exist_ok=True)
        # Only we hold `ours`: children get what they are passed and nothing else.
        ours, theirs = socket.socketpair()
        orders = Orders(
            number=self.number,
            listening=self._listening.fileno(),
            line=theirs.fileno(),
            common_dir=str(self._process.data_dir),
            config=str(self._process.config),
            host=self._process.host,
            own_port=self._process.workers_port and self._process.workers_port + self.number - 1,
        )
        try:
            with environment.of_child() as (environ, descriptors):
                self.child = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-P", "-m", "gateway.worker", msgspec.json.encode(orders).decode()],
                    env=environ,
                    pass_fds=(orders.listening, orders.line, *descriptors),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for us, and we tell them
                )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._line, self._serves, self._hung_up = ours, False, False

    def began(self) -> bool:
        """Whether it said just now that it serves."""
        said = b""
        if self._line is not None and not self._serves:
            with contextlib.suppress(OSError):
                said = self._line.recv(1)
        if said != SERVES:
            return False
        self.has_served = self._serves = True
        self.failures = 0
        if self._hung_up:
            self.tell(signal.SIGHUP)
        return True

    def ended(self) -> int | None:
        """The exit code of its process, once: afterwards it has none."""
        code = None if self.child is None else self.child.poll()
        if code is not None:
            self.began()  # it may have said so, and ended at once
            self._forget()
        return code

    def failed(self, now_s: float) -> float:
        """It ended, or could not be started; how long it is let be."""
        self.failures += 1
        pause = pause_s(self.failures)
        self.again_s = now_s + pause
        return pause

    def tell(self, number: int) -> None:
        """Send a signal. A process that only starts would die of SIGHUP, so it gets that when it serves."""
        if self.child is None:
            return
        if number == signal.SIGHUP and not self._serves:
            self._hung_up = True
        else:
            self.child.send_signal(number)

    def _forget(self) -> None:
        self.child = None
        if self._line is not None:
            self._line.close()
            self._line = None


class _Supervisor:
    def __init__(self, process: Process, count: int, listening: socket.socket) -> None:
        self._url = f"http://{shown(process.host)}:{listening.getsockname()[1]}"
        self._note = process.data_dir / NOTE
        self._listening = listening
        self._workers = [_Worker(number, process, listening) for number in range(1, count + 1)]
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # may be put into by a handler, at any moment
        self._is_stopping = False
        self._code = 0

    def run(self) -> int:
        """See `supervise`."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self._signals.put(number))
        self._note.unlink(missing_ok=True)  # of one that was killed
        try:
            while not self._is_stopping or any(worker.child is not None for worker in self._workers):
                for worker in self._workers:
                    self._look_at(worker)
                with contextlib.suppress(queue.Empty):
                    self._heard(self._signals.get(timeout=_STEP_S))
            return self._code
        finally:
            # Nothing else: where this raises our process ends, with it the lines, and at that the workers.
            self._note.unlink(missing_ok=True)

    def _look_at(self, worker: _Worker) -> None:
        if worker.began():
            log.info("worker_serves", worker=worker.number, url=self._url)
            if not self._note.exists():
                write_note(self._note, self._url)
        code = worker.ended()
        if code is not None:
            self._ended(worker, code)
        elif worker.child is None and not self._is_stopping and time.monotonic() >= worker.again_s:
            self._start(worker)

    def _ended(self, worker: _Worker, code: int) -> None:
        if self._is_stopping:
            if code not in _TOLD_TO_END:
                log.error("worker_ended", worker=worker.number, code=code)
                self._code = 1
        elif worker.has_served:
            pause = worker.failed(time.monotonic())
            log.error("worker_ended", worker=worker.number, code=code, again_s=pause)
        else:
            log.error("worker_not_started", worker=worker.number, code=code)
            self._code = 1
            self._stop()

    def _start(self, worker: _Worker) -> None:
        first = self._workers[0]
        if worker is not first and not first.has_served:
            return  # so that what keeps all of them from starting is told once
        try:
            worker.start()
        except OSError as error:
            if not worker.has_served:
                raise
            # No memory or no process to be had, perhaps for a moment; the others go on.
            log.error(  # noqa: TRY400 - the system's own word, no fault of ours
                "worker_not_started",
                worker=worker.number,
                reason=error.strerror,
                again_s=worker.failed(time.monotonic()),
            )

    def _heard(self, number: int) -> None:
        if number != signal.SIGHUP:
            self._stop()
        elif not self._is_stopping:
            for worker in self._workers:
                worker.tell(signal.SIGHUP)

    def _stop(self) -> None:
        """Tell all to end. Told again, they don't wait for connections."""
        self._is_stopping = True
        self._listening.close()  # so that connections are refused once the last worker takes no more
        for worker in self._workers:
            worker.tell(signal.SIGTERM)
