"""The log: one JSON line per event from every logger, with ids, without secrets, never in the way."""

from __future__ import annotations

import io
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from gateway.clock import ManualClock
from gateway.telemetry import Logs, acting, configure_logs, redact
from gateway.telemetry.logs import QUEUE_LINES
from tests.telemetry.house import ACTION

Configure = Callable[..., Callable[[], list[dict[str, Any]]]]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Configures the log into memory; the function it gives ends the log and returns its lines."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    chatty = {name: logging.getLogger(name).level for name in ("uvicorn.access", "aiohttp", "httpx", "asyncio")}
    made: list[Logs] = []

    def start(level: str = "info", **options: Any) -> Callable[[], list[dict[str, Any]]]:
        stream = io.StringIO()
        logs = configure_logs(level, stream=stream, clock=ManualClock(1_795_348_800_000_000_000), **options)
        made.append(logs)

        def end() -> list[dict[str, Any]]:
            logs.close()
            return [json.loads(line) for line in stream.getvalue().splitlines()]

        return end

    yield start
    for logs in made:
        logs.close()
    root.handlers[:], root.level = before
    for name, level in chatty.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_an_event_is_one_line_of_json(configure: Configure) -> None:
    lines = configure()
    structlog.get_logger("gateway.app").info("ready", port=8080, note="two\nlines")
    (line,) = lines()
    assert list(line)[:4] == ["ts", "level", "event", "logger"]
    assert line == {
        "ts": "2026-11-22T12:00:00.000000Z",
        "level": "info",
        "event": "ready",
        "logger": "gateway.app",
        "port": 8080,
        "note": "two\nlines",
    }


def test_inside_an_action_its_ids_are_on_every_line(configure: Configure) -> None:
    lines = configure()
    token = acting.set(ACTION)
    structlog.get_logger("gateway").warning("slow")
    logging.getLogger("some.library").warning("slow too")
    acting.reset(token)
    structlog.get_logger("gateway").warning("outside")
    *inside, outside = lines()
    for line in inside:
        assert line["request_id"] == "request-1"
        assert line["action"] == "0197-action"
        assert line["trace_id"] == "a" * 32
        assert line["span_id"] == "b" * 16
    assert "action" not in outside


def test_other_peoples_loggers_write_the_same_lines(configure: Configure) -> None:
    lines = configure()
    logging.getLogger("uvicorn.error").info("Started on %s", "127.0.0.1")
    logging.getLogger("uvicorn").handlers.append(logging.NullHandler())
    logging.getLogger("library").error("odd %d", 7)
    assert [(line["logger"], line["level"], line["event"]) for line in lines()] == [
        ("uvicorn.error", "info", "Started on 127.0.0.1"),
        ("library", "error", "odd 7"),
    ]


def test_requests_are_logged_only_if_asked_for(configure: Configure) -> None:
    lines = configure()
    logging.getLogger("uvicorn.access").info("GET / 200")
    logging.getLogger("aiohttp.access").info("GET / 200")
    logging.getLogger("httpx").info("HTTP Request: POST")
    assert lines() == []
    lines = configure(access=True)
    logging.getLogger("uvicorn.access").info("GET / 200")
    assert [line["event"] for line in lines()] == ["GET / 200"]


def test_below_the_level_nothing_is_written(configure: Configure) -> None:
    lines = configure("warning")
    structlog.get_logger("gateway").info("chatter")
    structlog.get_logger("gateway").error("trouble")
    assert [line["event"] for line in lines()] == ["trouble"]


def test_an_exception_is_in_its_line_without_secrets(configure: Configure) -> None:
    lines = configure()
    try:
        raise ValueError("upstream said Bearer abcdefgh12345678")
    except ValueError:
        structlog.get_logger("gateway").exception("failed")
        logging.getLogger("library").exception("failed")
    for line in lines():
        assert "Traceback" in line["exception"]
        assert "ValueError: upstream said Bearer [redacted]" in line["exception"]


def test_a_warning_of_python_is_a_line(configure: Configure) -> None:
    lines = configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [line["logger"] for line in lines()] == ["py.warnings"]


def test_secrets_in_fields_and_texts_are_redacted(configure: Configure) -> None:
    lines = configure()
    structlog.get_logger("gateway").warning(
        "key agw_0123456789abcdefghij refused",
        headers={"Authorization": "Bearer x", "accept": "json"},
        api_key="k",
    )
    (line,) = lines()
    assert line["event"] == "key [redacted] refused"
    assert line["headers"] == {"Authorization": "[redacted]", "accept": "json"}
    assert line["api_key"] == "[redacted]"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("basic dXNlcjpwYXNz", "basic [redacted]"),
        ("sk-proj-abcdefghijklmnop1234", "[redacted]"),
        ("sk-ant-api03-abcdefghijklmnop", "[redacted]"),
        ("ghp_abcdefghijklmnopqrstuvwxyz", "[redacted]"),
        ("AKIAABCDEFGHIJKLMNOP", "[redacted]"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2ln", "[redacted]"),
        ("https://ada:hunter2@host/x", "https://ada:[redacted]@host/x"),
        ("/console/sign-in?token=ags_x&next=/a", "/console/sign-in?token=[redacted]&next=/a"),
        ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----.", "[redacted]."),
        ("task-management of 12 tokens at http://host:8080/v1", "task-management of 12 tokens at http://host:8080/v1"),
    ],
)
def test_what_looks_like_a_secret_is_cut_out(text: str, clean: str) -> None:
    assert redact(text) == clean


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "X-Api-Key",
        "x-goog-api-key",
        "cookie",
        "set-cookie",
        "client_secret",
        "access_token",
        "password",
    ],
)
def test_a_field_named_like_a_secret_is_redacted(name: str) -> None:
    assert redact({name: "value"}) == {name: "[redacted]"}


@pytest.mark.parametrize("name", ["input_tokens", "max_tokens", "keyboard", "monkey", "tokens_per_minute"])
def test_a_field_that_only_sounds_like_one_is_kept(name: str) -> None:
    assert redact({name: 5}) == {name: 5}


def test_any_value_can_be_logged(configure: Configure) -> None:
    lines = configure()
    deep: list[Any] = []
    deep.append(deep)
    structlog.get_logger("gateway").info("odd", value=object, raw=b"\xff", deep=deep, big=2**80, long="x" * 100_000)
    (line,) = lines()
    assert line["event"] == "odd"
    assert len(line["long"]) < 20_000


def test_a_line_that_cannot_be_formed_says_where_and_not_with_what(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = configure()
    logging.getLogger("library").error("%d", "SECRET")
    (line,) = lines()
    assert line["event"] == "a log line could not be formed"
    assert line["at"].startswith("test_logs:")
    assert "SECRET" not in json.dumps(line) + capsys.readouterr().err


class Stuck(io.StringIO):
    """A reader of the log that reads nothing until told."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.go.wait(10)
        return super().write(text)


def test_a_reader_that_is_stuck_holds_nobody_up_and_lines_are_counted_as_dropped() -> None:
    stream = Stuck()
    drops: list[int] = []
    logs = Logs(stream, on_drop=lambda: drops.append(1))
    logs.put("first")
    assert stream.entered.wait(10)
    for number in range(QUEUE_LINES + 25):
        logs.put(str(number))
    assert logs.dropped == len(drops) == 25
    stream.go.set()
    logs.close()
    assert len(stream.getvalue().splitlines()) == QUEUE_LINES + 1


def test_a_reader_that_is_gone_breaks_nothing() -> None:
    stream = io.StringIO()
    stream.close()
    logs = Logs(stream, on_drop=lambda: None)
    logs.put("nobody hears this")
    logs.close()
    logs.close()
    assert logs.dropped == 1
