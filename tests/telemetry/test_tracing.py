"""Spans around the path: none by default, by the conventions where wanted, and never with content."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry

from gateway.actions import (
    Cost,
    Kind,
    Result,
    Status,
    Trace,
    Usage,
)
from gateway.clock import ManualClock, SystemClock
from gateway.errors import Refusal
from gateway.telemetry import Metrics, NoTracing, Observer, names, parse_traceparent, start_export
from gateway.telemetry.otel import SdkTracing
from gateway.telemetry.otel_sdk import provider, resource, sampler
from gateway.telemetry.settings import Settings
from tests.telemetry.house import ACTION, ALLOWED, DONE, TRANSFER, act, play

WHO = resource(service_name="gateway", version="1", environment="test", replica_id="replica-1")


class Recorded:
    """Tracing into memory."""

    def __init__(self, made: TracerProvider | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        made = made or provider(WHO)
        made.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = SdkTracing(made)
        self.observer = Observer(Metrics(CollectorRegistry()), ManualClock(), self.tracing)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def attributes(span: ReadableSpan) -> dict[str, object]:
    assert span.attributes is not None
    return dict(span.attributes)


async def test_a_model_call_is_a_server_span_with_its_stages_below(recorded: Recorded) -> None:
    await play(recorded.observer, ACTION)
    finished = recorded.exporter.get_finished_spans()
    decide, intent, call, root = finished
    assert [span.name for span in finished] == [
        "gateway.policy.decide",
        "gateway.audit.intent",
        "chat gpt-demo",
        "chat demo",
    ]
    assert [span.kind for span in finished] == [SpanKind.INTERNAL, SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.SERVER]
    for child in (decide, intent, call):
        assert child.parent is not None
        assert child.parent.span_id == root.context.span_id
    assert attributes(root) == {
        "gateway.action.id": "0197-action",
        "gateway.action.kind": "model.invoke",
        "gateway.request.id": "request-1",
        "gateway.tenant": "acme",
        "gateway.door": "openai.chat",
        "gateway.status": "succeeded",
        "gateway.policy.verdict": "allow",
        "gateway.policy.action": "allow",
        "gateway.policy.revision": "r1",
        "gateway.policy.rules": ("quickstart.reads",),
        "gateway.cost.usd": "0.000125",
        "gateway.cost.estimated": False,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "demo",
        "gen_ai.agent.id": "reader",
        "gen_ai.agent.version": "3",
        "gen_ai.conversation.id": "session-1",
    }
    assert attributes(call) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-demo",
        "gen_ai.request.stream": False,
        "gateway.model.alias": "demo",
        "gen_ai.agent.id": "reader",
        "gen_ai.agent.version": "3",
        "gen_ai.conversation.id": "session-1",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "gpt-demo-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 2,
    }
    assert attributes(decide) == {
        "gateway.policy.verdict": "allow",
        "gateway.policy.action": "allow",
        "gateway.policy.revision": "r1",
        "gateway.policy.rules": ("quickstart.reads",),
    }


async def test_usage_that_the_provider_did_not_tell_is_not_reported(recorded: Recorded) -> None:
    guessed = Cost(nanousd=1, usage=Usage(input_tokens=10, output_tokens=99, estimated=True), estimated=True)
    await play(recorded.observer, ACTION, Result(status=Status.SUCCEEDED, cost=guessed))
    assert not [name for name in attributes(recorded.spans()["chat gpt-demo"]) if name.startswith("gen_ai.usage")]


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
    *_, call, root = recorded.exporter.get_finished_spans()
    assert call.name == root.name == "tools/call transfer"
    assert (call.kind, root.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    for span, version, rpc_id in ((root, "2026-07-28", "7"), (call, "2025-11-25", "41")):
        found = attributes(span)
        assert found["mcp.method.name"] == "tools/call"
        assert found["mcp.protocol.version"] == version
        assert found["jsonrpc.request.id"] == rpc_id
        assert found["gen_ai.operation.name"] == "execute_tool"
        assert found["gen_ai.tool.name"] == "transfer"
    assert attributes(call)["gateway.tool.server"] == "ledger"


async def test_a_tool_call_that_is_no_mcp_is_named_by_the_tool_convention(recorded: Recorded) -> None:
    await play(recorded.observer, act(kind=Kind.TOOL_CALL, target="ledger__transfer", door="http"))
    root = recorded.exporter.get_finished_spans()[-1]
    assert root.name == "execute_tool transfer"
    assert "mcp.method.name" not in attributes(root)


async def test_a_tools_own_error_is_a_tool_error(recorded: Recorded) -> None:
    await play(recorded.observer, TRANSFER, Result(status=Status.FAILED))
    *_, call, root = recorded.exporter.get_finished_spans()
    for span in (call, root):
        assert attributes(span)["error.type"] == "tool_error"
        assert not span.status.is_ok


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
    for stage in ("action", "decide"):
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


async def test_upstream_requests_continue_the_trace_from_the_span_that_makes_them(recorded: Recorded) -> None:
    trace_id, span_id, sampled = parse_traceparent((await play(recorded.observer, ACTION)).encode()) or ("", "", False)
    call = recorded.spans()["chat gpt-demo"]
    assert (trace_id, int(span_id, 16), sampled) == (ACTION.trace.trace_id, call.context.span_id, True)


async def test_without_an_exporter_upstream_requests_still_carry_the_trace() -> None:
    header = await play(Observer(Metrics(CollectorRegistry()), ManualClock(), NoTracing()), ACTION)
    assert parse_traceparent(header.encode()) == (ACTION.trace.trace_id, ACTION.trace.span_id, False)


async def test_a_callers_state_and_the_context_that_carried_a_message_are_on_the_span(recorded: Recorded) -> None:
    trace = Trace("a" * 32, "b" * 16, "c" * 16, state="vendor=1,other=2", link=("d" * 32, "e" * 16))
    await play(recorded.observer, act(trace=trace))
    root = recorded.spans()["chat demo"]
    assert root.context.trace_state.to_header() == "vendor=1,other=2"
    (link,) = root.links
    assert (link.context.trace_id, link.context.span_id) == (int("d" * 32, 16), int("e" * 16, 16))


async def test_waiting_is_a_span_that_names_its_case_and_links_to_who_asked_first(recorded: Recorded) -> None:
    with recorded.observer.span("action", TRANSFER):
        with recorded.observer.waits(TRANSFER, "case-1", TRANSFER.trace) as waits:
            waits.came_to("approved")
        with recorded.observer.waits(TRANSFER, "case-2", Trace("d" * 32, "e" * 16)):
            pass
    own, others, root = recorded.exporter.get_finished_spans()
    assert own.name == others.name == "gateway.approval.wait"
    assert attributes(own) == {"gateway.case.id": "case-1", "gateway.case.state": "approved"}
    assert own.parent is not None
    assert own.parent.span_id == root.context.span_id
    assert not own.links
    assert [link.context.trace_id for link in others.links] == [int("d" * 32, 16)]


async def test_what_was_approved_runs_in_the_trace_that_asked_whoever_set_it_going(recorded: Recorded) -> None:
    claimer = act(trace=Trace("d" * 32, "e" * 16), kind=Kind.TOOL_CALL, target="ledger__transfer")

    async def carry_out() -> None:
        with recorded.observer.attempt(TRANSFER, "case-1"):
            with recorded.observer.span("intent", TRANSFER):
                pass
            recorded.observer.ended(TRANSFER, Status.SUCCEEDED, ALLOWED, DONE)

    with recorded.observer.span("action", claimer):
        await asyncio.create_task(carry_out())
    intent, attempt, root = recorded.exporter.get_finished_spans()
    assert (attempt.name, attempt.kind) == ("execute_tool transfer", SpanKind.INTERNAL)
    assert f"{attempt.context.trace_id:032x}" == TRANSFER.trace.trace_id
    assert attempt.parent is not None
    assert f"{attempt.parent.span_id:016x}" == TRANSFER.trace.span_id
    assert [link.context.span_id for link in attempt.links] == [root.context.span_id]
    assert intent.parent is not None
    assert intent.parent.span_id == attempt.context.span_id
    assert attributes(attempt)["gateway.case.id"] == "case-1"
    assert attributes(attempt)["gateway.status"] == "succeeded"


@pytest.mark.parametrize(
    ("name", "ratio", "kept"),
    [
        ("always_on", 1.0, 8),
        ("always_off", 1.0, 0),
        ("parentbased_always_off", 1.0, 0),
        ("parentbased_traceidratio", 0.5, 4),
        ("traceidratio", 0.5, 4),
    ],
)
async def test_sampling_goes_by_the_trace_and_not_by_what_a_caller_says(name: str, ratio: float, kept: int) -> None:
    recorded = Recorded(provider(WHO, sampler(name, ratio)))
    for number in range(8):
        trace = Trace(f"{1:016x}{number * 2**61:016x}", "b" * 16, "c" * 16)
        header = await play(recorded.observer, act(trace=trace))
        parsed = parse_traceparent(header.encode())
        assert parsed is not None
        assert parsed[0] == trace.trace_id
    finished = recorded.exporter.get_finished_spans()
    assert len(finished) == 4 * kept, "a trace is kept or dropped as a whole"


def test_by_default_opentelemetry_is_not_even_imported() -> None:
    program = (
        "import sys\n"
        "from prometheus_client import CollectorRegistry\n"
        "from gateway.clock import SystemClock\n"
        "from gateway.telemetry import Metrics, NoTracing, start_export\n"
        "from gateway.telemetry.settings import read\n"
        "for environ in ({}, {'OTEL_SDK_DISABLED': 'true', 'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://x'}):\n"
        "    export = start_export(read(environ), Metrics(CollectorRegistry()), SystemClock(), service_name='x')\n"
        "    assert isinstance(export.tracing, NoTracing) and export.put_line is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_missing_exporter_package_is_said_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    # An entry of None in sys.modules makes an import fail as if the package were not installed.
    monkeypatch.delitem(sys.modules, "gateway.telemetry.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(Refusal, match="opentelemetry-exporter-otlp-proto-http") as refused:
        start_export(Settings(traces="otlp"), Metrics(CollectorRegistry()), SystemClock(), service_name="x")
    assert refused.value.code == "invalid_configuration"


async def test_spans_go_to_standard_error_for_development(capfd: pytest.CaptureFixture[str]) -> None:
    metrics = Metrics(CollectorRegistry())
    export = start_export(Settings(traces="console"), metrics, SystemClock(), service_name="x")
    await play(Observer(metrics, ManualClock(), export.tracing), ACTION)
    await export.aclose()
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert len(lines) == 4
    assert all('"name"' in line for line in lines)


def test_names_of_conventions_are_spelled_as_pinned() -> None:
    # What dashboards and queries rely on: a change here is a change users see.
    assert names.SCHEMA_URL == "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
    assert names.GEN_AI_USAGE_CACHED_TOKENS == "gen_ai.usage.cache_read.input_tokens"
    assert names.METHOD_OF_KIND[Kind.TOOL_LIST] == "tools/list"
