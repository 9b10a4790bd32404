"""The process: socket, signals, uvicorn, and the note that tells the command line where the gateway is.

SIGTERM and SIGINT: no new connections, running requests and streams finish (up to the grace), the log is flushed and
signed. SIGHUP: reload. A start that can't be a good one ends with one sentence and exit code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
import uvicorn

from gateway.app import App
from gateway.connection import Connection
from gateway.errors import Refusal
from gateway.process import Process
from gateway.telemetry import Logs, configure_logs

log = structlog.get_logger("gateway.serve")

WATCH_EVERY_S = 2.0
NOTE = "gateway.json"

# What actions get once connections had the whole grace: their callers are gone, their results need to be recorded.
_LEAST_GRACE_S = 1.0
_LATCH_LOOK_S = 0.1

OnReady = Callable[[App, str], Awaitable[None]]


@dataclass(frozen=True)
class AmongWorkers:
    """What a worker is given: the socket that all share, its own by which it alone is reached, the operator's token and
    the data directory that all share."""

    listening: socket.socket
    own: socket.socket
    operator_token: str
    common_dir: Path


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: once it is done it raises the signal again, which would end the process
    before the log is flushed and signed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def serve(
    process: Process,
    *,
    on_ready: OnReady | None = None,
    among: AmongWorkers | None = None,
    defaults: Path | None = None,
) -> None:
    """Run until told to stop. Raises Refusal if the gateway can't start, or can't go on and must be restarted.

    `defaults` is a file whose settings apply where the configuration says nothing.
    """
    logs = configure_logs(process.log_level)
    try:
        runner: Callable[[], asyncio.AbstractEventLoop] | None = None
        with contextlib.suppress(ImportError):
            import uvloop

            runner = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=runner) as run:
            run.run(_serve(process, logs, on_ready, among, defaults))
    finally:
        logs.close()


async def _serve(
    process: Process, logs: Logs, on_ready: OnReady | None, among: AmongWorkers | None, defaults: Path | None
) -> None:
    sockets = [listen(process.host, process.port)] if among is None else [among.listening, among.own]
    try:
        port: int = sockets[0].getsockname()[1]
        app = App(
            process,
            operator_token=None if among is None else among.operator_token,
            common_dir=None if among is None else among.common_dir,
            port=port,
            defaults=defaults,
        )
        logs.on_drop = app.metrics.log_line_dropped
        await app.start()
        logs.also = app.export.put_line
    except BaseException:
        for one in sockets:
            one.close()
        raise
    local_url = f"http://{shown(process.host)}:{port}"
    url = process.public_url or local_url
    # For who must reach this very process: behind `public_url`, or the socket of all workers, another may answer.
    if among is None:
        own_url, reached = local_url, f"http://{_reached(process.host)}:{port}"
    else:
        own_url = reached = "http://{}:{}".format(*among.own.getsockname())
    app.footing.serving_at(reached)
    settings = app.configured.config.server
    grace_s, drain_s = settings.shutdown_grace_s, settings.drain_s if app.footing.replica else 0.0
    server = _Server(
        uvicorn.Config(
            app.asgi,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody in front is trusted to say who a caller is
            date_header=True,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(grace_s) or 1,
        )
    )
    note = process.data_dir / NOTE
    background = [
        asyncio.create_task(_reload_on_hangup(app)),
        asyncio.create_task(_watch(app)),
        asyncio.create_task(app.health.watch()),
        asyncio.create_task(_end_when_ended(app, server)),
    ]
    told_s: list[float] = []

    def close() -> None:
        app.stopping()
        server.should_exit = True

    def stop() -> None:
        if drain_s and not told_s:
            # Whoever follows /readyz sends the next requests elsewhere; what is on its way here is still served.
            app.is_stopping = True
            asyncio.get_running_loop().call_later(drain_s, close)
        else:
            close()
        server.force_exit = bool(told_s)  # told twice: don't wait for connections, but still close the log
        told_s.append(time.monotonic())

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        write_note(note, own_url)
        background.append(asyncio.create_task(_announce(server, app, url, on_ready)))
        _settle_memory()
        await server.serve(sockets=sockets)
    finally:
        app.stopping()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        note.unlink(missing_ok=True)
        waited_s = time.monotonic() - told_s[0] if told_s else 0.0
        await app.stop(0.0 if len(told_s) > 1 else max(_LEAST_GRACE_S, grace_s + drain_s - waited_s))
    if app.footing.replica and app.writer.latched is not None:
        raise Refusal("audit_unavailable", f"This replica ends, to be started anew: {app.writer.latched}.")


async def _end_when_ended(app: App, server: uvicorn.Server) -> None:
    """A replica that can write nothing more makes room for a new one; the embedded gateway stays, for people to see."""
    while not app.footing.replica or app.writer.latched is None:  # noqa: ASYNC110 - a latch tells nobody
        await asyncio.sleep(_LATCH_LOOK_S)
    log.error("replica_ends", reason=app.writer.latched)
    app.stopping()
    server.should_exit = True
    for listener in server.servers if server.started else ():  # at once: who refuses fast is asked most
        listener.close()


async def _announce(server: uvicorn.Server, app: App, url: str, on_ready: OnReady | None) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag, not an event
        await asyncio.sleep(0.01)
    missing = [one.id for one in app.health.unready()]  # each with its reason is a line of its own
    if missing:
        log.warning("not_ready", url=url, missing=missing)
    else:
        log.info("ready", url=url, policy=app.configured.engine.revision[:19])
    if app.site.shares_host is not None:
        log.warning("console_shares_host", message=app.site.shares_host)
    if on_ready is not None:
        await on_ready(app, url)
    await app.reverification.run()


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """Bind before anything else is built, so that a taken port is told at once.

    Raises Refusal(conflict), which names `option` as what to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise Refusal(
            "conflict",
            f"The gateway cannot listen on {host}:{port} ({error.strerror}); stop what uses it or take another"
            f" {option}.",
        ) from error
    listening.listen(1024)
    listening.setblocking(False)
    return listening


def shown(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104 - bound to all addresses, reached by this machine as localhost
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _reached(host: str) -> str:
    """How other machines reach an address that is bound: all addresses, by this machine's name."""
    return socket.gethostname() if host in ("0.0.0.0", "::") else shown(host)  # noqa: S104


def write_note(note: Path, url: str) -> None:
    """Tell the command line where the gateway of a data directory is, and which process."""
    new = note.with_suffix(".new")
    new.write_bytes(msgspec.json.encode({"url": url, "pid": os.getpid()}))
    new.replace(note)


def _settle_memory() -> None:
    """Everything that lives as long as the process leaves the collector's sight; fewer passes from here on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _reload_on_hangup(app: App) -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    while True:
        await asked.wait()
        asked.clear()
        await _reload(app, "SIGHUP")


async def _watch(app: App) -> None:
    while True:
        await asyncio.sleep(WATCH_EVERY_S)
        if await app.changed():
            await _reload(app, "file change")


async def _reload(app: App, why: str) -> None:
    try:
        await app.reload(why)
    except Refusal as refusal:  # such as a log that takes no record; the old state is in force and the watch goes on
        log.error("reload_failed", why=why, reason=refusal.message)  # noqa: TRY400 - no traceback of a refusal
