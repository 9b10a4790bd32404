"""Spans around the path: none by default, by the conventions where wanted, and never with content."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry

from gateway.actions import Action, Cost, Decision, Effect, Kind, Result, Status, Trace, Usage
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.telemetry import Metrics, NoTracing, Observer, Tracing, names, parse_traceparent, start_tracing
from gateway.telemetry.otel import SdkTracing, provider
from tests.telemetry.house import ACTION, act

ALLOWED = Decision(effect=Effect.ALLOW, rules=("quickstart.reads",), revision="r1")
DONE = Result(
    status=Status.SUCCEEDED,
    cost=Cost(nanousd=125_000, usage=Usage(input_tokens=10, output_tokens=5, cached_input_tokens=3)),
    body=b"SECRET-ANSWER",
)
TRANSFER = act(kind=Kind.TOOL_CALL, target="ledger__transfer", door="mcp", body=None)


class Recorded:
    """Tracing into memory."""

    def __init__(self, made: TracerProvider | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        made = made or provider(service_name="gateway", version="1", environment="test")
        made.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = SdkTracing(made, provider_of=lambda alias: "openai" if alias == "demo" else None)
        self.observer = Observer(Metrics(CollectorRegistry()), ManualClock(), self.tracing)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


async def play(observer: Observer, action: Action, result: Result = DONE) -> None:
    """The path as the governor walks it."""
    with observer.span("action", action):
        with observer.span("decide", action):
            await asyncio.sleep(0)
        with observer.span("intent", action):
            await asyncio.sleep(0)
        with observer.span("perform", action):
            await asyncio.sleep(0)
        observer.ended(action, result.status, ALLOWED, result)


async def test_a_model_call_is_a_server_span_with_its_stages_below(recorded: Recorded) -> None:
    await play(recorded.observer, ACTION)
    finished = recorded.exporter.get_finished_spans()
    decide, intent, perform, root = finished
    assert [span.name for span in finished] == [
        "gateway.policy.decide",
        "gateway.audit.intent",
        "chat demo",
        "chat demo",
    ]
    assert (root.kind, perform.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    for child in (decide, intent, perform):
        assert child.parent is not None
        assert child.parent.span_id == root.context.span_id
    assert root.attributes is not None
    assert dict(root.attributes) == {
        "gateway.action.id": "0197-action",
        "gateway.action.kind": "model.invoke",
        "gateway.request.id": "request-1",
        "gateway.tenant": "acme",
        "gateway.door": "openai.chat",
        "gateway.status": "succeeded",
        "gateway.policy.verdict": "allow",
        "gateway.policy.revision": "r1",
        "gateway.policy.rules": ("quickstart.reads",),
        "gateway.cost.usd": "0.000125",
        "gateway.cost.estimated": False,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "demo",
        "gen_ai.agent.id": "reader",
        "gen_ai.agent.version": "3",
        "gen_ai.conversation.id": "session-1",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
    }


async def test_the_span_of_an_action_bears_the_ids_of_its_record(recorded: Recorded) -> None:
    await play(recorded.observer, ACTION)
    root = recorded.exporter.get_finished_spans()[-1]
    assert f"{root.context.trace_id:032x}" == ACTION.trace.trace_id
    assert f"{root.context.span_id:016x}" == ACTION.trace.span_id
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == ACTION.trace.parent_id


async def test_an_action_that_begins_a_trace_has_no_parent(recorded: Recorded) -> None:
    await play(recorded.observer, act(trace=Trace("d" * 32, "e" * 16)))
    await play(recorded.observer, act(trace=Trace("f" * 32, "1" * 16)))
    *_, first, second = (span for span in recorded.exporter.get_finished_spans() if span.kind is SpanKind.SERVER)
    assert first.parent is second.parent is None
    assert (first.context.trace_id, first.context.span_id) == (int("d" * 32, 16), int("e" * 16, 16))
    assert (second.context.trace_id, second.context.span_id) == (int("f" * 32, 16), int("1" * 16, 16))


async def test_actions_at_once_do_not_mix_their_spans(recorded: Recorded) -> None:
    actions = [act(trace=Trace(f"{number:032x}", f"{number:016x}")) for number in range(1, 9)]
    await asyncio.gather(*(play(recorded.observer, action) for action in actions))
    for span in recorded.exporter.get_finished_spans():
        if span.parent is not None:
            assert span.parent.span_id == span.context.trace_id  # by construction of the ids above
    assert len(recorded.exporter.get_finished_spans()) == 32


async def test_a_tool_call_is_named_by_the_mcp_convention(recorded: Recorded) -> None:
    await play(recorded.observer, TRANSFER)
    root = recorded.exporter.get_finished_spans()[-1]
    assert root.name == "tools/call transfer"
    assert root.attributes is not None
    assert root.attributes["mcp.method.name"] == "tools/call"
    assert root.attributes["gen_ai.operation.name"] == "execute_tool"
    assert root.attributes["gen_ai.tool.name"] == "transfer"


async def test_a_tools_own_error_is_a_tool_error(recorded: Recorded) -> None:
    await play(recorded.observer, TRANSFER, Result(status=Status.FAILED))
    root = recorded.exporter.get_finished_spans()[-1]
    assert root.attributes is not None
    assert root.attributes["error.type"] == "tool_error"
    assert not root.status.is_ok


def test_a_refusal_marks_the_span_by_code_and_rules_and_names_no_target(recorded: Recorded) -> None:
    action = act(target="whatever a client made up")
    with pytest.raises(Refusal), recorded.observer.span("action", action):
        raise Refusal("denied_by_policy", "SECRET-REASON", rules=("r1", "r2"))
    root = recorded.spans()["chat"]
    assert root.attributes is not None
    assert root.attributes["error.type"] == "denied_by_policy"
    assert root.attributes["gateway.policy.rules"] == ("r1", "r2")
    assert not root.status.is_ok


async def test_content_is_never_in_a_span(recorded: Recorded) -> None:
    await play(recorded.observer, ACTION)
    await play(recorded.observer, TRANSFER)
    for stage in ("action", "decide", "perform"):
        with pytest.raises(ValueError, match="SECRET"), recorded.observer.span(stage, ACTION):
            raise ValueError("SECRET-TEXT")
    everything = "".join(span.to_json() for span in recorded.exporter.get_finished_spans())
    assert "SECRET" not in everything
    assert '"ada"' not in everything  # quoted: the hex of a span's id may spell it
    assert "ValueError" in everything


def test_a_long_name_is_cut(recorded: Recorded) -> None:
    with recorded.observer.span("action", act(target="x" * 100_000)):
        pass
    root = recorded.spans()["chat"]
    assert root.attributes is not None
    assert len(str(root.attributes["gen_ai.request.model"])) == 256


def test_upstream_requests_continue_the_trace_from_the_span_that_makes_them(recorded: Recorded) -> None:
    with recorded.observer.span("action", ACTION), recorded.observer.span("perform", ACTION):
        header = recorded.tracing.outgoing(ACTION)
    trace_id, span_id, sampled = parse_traceparent(header.encode()) or ("", "", False)
    perform = recorded.exporter.get_finished_spans()[0]
    assert (trace_id, int(span_id, 16), sampled) == (ACTION.trace.trace_id, perform.context.span_id, True)
    outside = parse_traceparent(recorded.tracing.outgoing(ACTION).encode())
    assert outside == (ACTION.trace.trace_id, ACTION.trace.span_id, False)


def test_without_an_exporter_upstream_requests_still_carry_the_trace() -> None:
    header = NoTracing().outgoing(ACTION)
    assert parse_traceparent(header.encode()) == (ACTION.trace.trace_id, ACTION.trace.span_id, False)


def test_by_default_opentelemetry_is_not_even_imported() -> None:
    program = (
        "import sys\n"
        "from gateway.telemetry import NoTracing, start_tracing\n"
        "assert isinstance(start_tracing(), NoTracing)\n"
        "assert isinstance(start_tracing('none', otlp_endpoint='http://x'), NoTracing)\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_missing_exporter_package_is_said_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    # An entry of None in sys.modules makes an import fail as if the package were not installed.
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(Refusal, match="opentelemetry-exporter-otlp-proto-http") as refused:
        start_tracing("otlp")
    assert refused.value.code == "invalid_configuration"


class Collector(HTTPServer):
    """A collector that keeps what it is sent."""

    received: list[ExportTraceServiceRequest]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") is None:
            self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector(("127.0.0.1", 0), _Handler)
    server.received = []
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_spans_reach_a_collector_before_the_stop_is_over(collector: Collector) -> None:
    tracing: Tracing = start_tracing(
        otlp_endpoint=f"http://127.0.0.1:{collector.server_port}/", service_name="gw", version="9", environment="stage"
    )
    await play(Observer(Metrics(CollectorRegistry()), ManualClock(), tracing), ACTION)
    await tracing.aclose()
    spans = [s for r in collector.received for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]
    assert sorted(span.name for span in spans) == [
        "chat demo",
        "chat demo",
        "gateway.audit.intent",
        "gateway.policy.decide",
    ]
    assert {span.trace_id.hex() for span in spans} == {ACTION.trace.trace_id}
    resource = {
        item.key: item.value.string_value
        for r in collector.received
        for item in r.resource_spans[0].resource.attributes
    }
    assert resource["service.name"] == "gw"
    assert resource["deployment.environment.name"] == "stage"


async def test_spans_go_to_standard_error_for_development(capfd: pytest.CaptureFixture[str]) -> None:
    tracing = start_tracing("console")
    await play(Observer(Metrics(CollectorRegistry()), ManualClock(), tracing), ACTION)
    await tracing.aclose()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all('"name"' in line for line in lines)


def test_names_of_conventions_are_spelled_as_pinned() -> None:
    # What dashboards and queries rely on: a change here is a change users see.
    assert names.SCHEMA_URL == "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
    assert names.GEN_AI_USAGE_CACHED_TOKENS == "gen_ai.usage.cache_read.input_tokens"
    assert names.METHOD_OF_KIND[Kind.TOOL_LIST] == "tools/list"
