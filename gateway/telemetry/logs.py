"""The log: one JSON object per line, ours (structlog) and everybody else's (stdlib, uvicorn) in the same form.

Every line has `ts`, `level`, `event` and `logger`; inside an action also `request_id`, `action`, `trace_id` and
`span_id`. Nothing is logged per request at INFO on the happy path, unless access logs are asked for.

Fails open: lines are written by a thread of the log's own, so that a slow reader of the log never holds up an
action; when `QUEUE_LINES` lines wait, further ones are dropped and counted.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import queue
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, TextIO

import orjson
import structlog

from gateway.actions import Action
from gateway.clock import Clock, SystemClock, rfc3339
from gateway.telemetry.redaction import redact

QUEUE_LINES = 10_000
CLOSE_TIMEOUT_S = 2.0

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_CHATTY = ("aiohttp", "alembic", "asyncio", "httpcore", "httpx", "httpx2", "mcp", "opentelemetry", "LiteLLM")
"""Libraries that say things per request; they are heard from WARNING on."""

_FIRST = ("ts", "level", "event", "logger")

acting: ContextVar[Action | None] = ContextVar("acting", default=None)
"""The action that runs in this context; its ids go into each log line."""


class Logs:
    """The writer of log lines, with a thread of its own.

    `on_drop` may be set later, from any thread; so may `also`, which is handed each line too and must not wait.
    """

    def __init__(self, stream: TextIO, on_drop: Callable[[], None]) -> None:
        self.dropped = 0
        self._stream = stream
        self.on_drop = on_drop
        self.also: Callable[[str], None] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_LINES)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Hand a line over; never waits. Safe from any thread."""
        if self.also is not None:
            self.also(line)
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1
            self.on_drop()

    def close(self) -> None:
        """Write what is left, for at most `CLOSE_TIMEOUT_S`. Doing so twice does nothing."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._lines.put(None, timeout=CLOSE_TIMEOUT_S)
            self._thread.join(CLOSE_TIMEOUT_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):  # the reader is gone, or the stream was closed under us
                self.dropped += 1
                self.on_drop()


class _Handler(logging.Handler):
    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a log call must not break its caller
            # Not `handleError`: that prints the arguments as they are, secrets included.
            about = {"event": "a log line could not be formed", "level": "error", "logger": record.name}
            line = orjson.dumps(
                {**about, "at": f"{record.module}:{record.lineno}", "error": repr(type(error))}
            ).decode()
        self._logs.put(line)


def configure_logs(
    level: str = "info",
    *,
    stream: TextIO | None = None,
    access: bool = False,
    clock: Clock | None = None,
    on_drop: Callable[[], None] = lambda: None,
) -> Logs:
    """Route every logger of the process into JSON lines on `stream` (default: standard error).

    `level`: debug, info, warning or error. `access`: one line per HTTP request too. Give uvicorn
    `log_config=None`, or it puts its own handlers back. Close what is returned at the end.
    """
    logs = Logs(stream if stream is not None else sys.stderr, on_drop)
    atexit.register(logs.close)
    chain: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _stamp(clock or SystemClock()),
        _of_the_action,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *chain,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(logs)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _as_json,
            ],
        )
    )
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(_LEVELS[level])
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    logging.getLogger("uvicorn.access").setLevel(logging.NOTSET if access else logging.WARNING)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, _LEVELS[level]))
    return logs


def _stamp(clock: Clock) -> structlog.types.Processor:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["ts"] = rfc3339(clock.now_ns())
        return event

    return add


def _of_the_action(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    action = acting.get()
    if action is not None:
        event.setdefault("request_id", action.request_id)
        event.setdefault("action", action.id)
        event.setdefault("trace_id", action.trace.trace_id)
        event.setdefault("span_id", action.trace.span_id)
    return event


def _as_json(_logger: Any, _method: str, event: Mapping[str, Any]) -> str:
    clean = redact(event)
    ordered = {name: clean.pop(name) for name in _FIRST if name in clean}
    return orjson.dumps({**ordered, **clean}, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
