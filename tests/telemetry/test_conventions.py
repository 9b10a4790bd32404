"""The metrics of the GenAI and MCP conventions: what is timed, what is counted, what is no label."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway.actions import Cost, Kind, Reply, ReplyStream, Result, Rpc, Status, Usage
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.telemetry import Metrics, Observer, names
from tests.telemetry.house import ACTION, DONE, MODEL, TOOL, TRANSFER, act, play


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(name, labels)
    return 0.0 if found is None else found


class Pieces:
    """A stream that takes its time."""

    status = 200

    def __init__(self, clock: ManualClock, *waits_s: float) -> None:
        self.headers: dict[str, str] = {}
        self._clock = clock
        self._waits_s = iter(waits_s)

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        for wait_s in self._waits_s:
            self._clock.advance(wait_s)
            return b"piece"
        raise StopAsyncIteration

    async def aclose(self) -> None:
        return None


async def test_a_stream_is_timed_to_its_end_and_not_to_when_people_let_it_go(metrics: Metrics) -> None:
    clock = ManualClock()
    call = Observer(metrics, clock).call(act(stream=True), MODEL, None)
    with call:
        clock.advance(1)
    stream: Reply | ReplyStream = call.answer(Pieces(clock, 2, 3, 4))
    assert not isinstance(stream, Reply)
    async for _ in stream:
        clock.advance(100)  # a person decides
    clock.advance(1000)
    call.ended(DONE)
    of_model = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai", "gen_ai_request_model": "gpt-demo"}
    assert value(metrics, names.MODEL_FIRST_CHUNK + "_sum", **of_model) == 3
    assert value(metrics, names.MODEL_NEXT_CHUNK + "_sum", **of_model) == 7
    assert value(metrics, names.MODEL_NEXT_CHUNK + "_count", **of_model) == 2
    assert value(metrics, names.MODEL_TOKENS + "_sum", **of_model, gen_ai_token_type="input") == 10
    assert value(metrics, names.MODEL_TOKENS + "_sum", **of_model, gen_ai_token_type="output") == 5
    assert value(metrics, names.MODEL_DURATION + "_count", **of_model, error_type="") == 1


async def test_tokens_that_were_only_guessed_are_not_counted_as_told(metrics: Metrics) -> None:
    guessed = Cost(usage=Usage(input_tokens=10, output_tokens=99, estimated=True), estimated=True)
    await play(
        Observer(metrics, ManualClock()), ACTION, Result(status=Status.FAILED, code="upstream_failed", cost=guessed)
    )
    of_model = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai", "gen_ai_request_model": "gpt-demo"}
    assert value(metrics, names.MODEL_TOKENS + "_count", **of_model, gen_ai_token_type="output") == 0
    assert value(metrics, names.MODEL_DURATION + "_count", **of_model, error_type="upstream_failed") == 1


async def test_a_tool_call_is_timed_for_who_serves_it_and_for_who_asks(metrics: Metrics) -> None:
    observer = Observer(metrics, ManualClock())
    await play(observer, TRANSFER)
    await play(observer, TRANSFER, Result(status=Status.FAILED))
    for error in ("", "tool_error"):
        of_tool = {"gen_ai_tool_name": "transfer", "gateway_tool_server": "ledger", "error_type": error}
        assert value(metrics, names.TOOL_DURATION + "_count", **of_tool) == 1
        assert value(metrics, names.MCP_CLIENT_DURATION + "_count", **of_tool, mcp_method_name="tools/call") == 1
        served = {"gen_ai_tool_name": "ledger__transfer", "mcp_method_name": "tools/call", "error_type": error}
        assert value(metrics, names.MCP_SERVER_DURATION + "_count", **served) == 1


def test_what_clients_make_up_is_no_label(metrics: Metrics) -> None:
    observer = Observer(metrics, ManualClock())
    for number in range(50):
        action = act(kind=Kind.TOOL_CALL, target=f"made-up-{number}", door="mcp", rpc=Rpc("2025-11-25", str(number)))
        with pytest.raises(Refusal), observer.span("action", action):
            raise Refusal("unknown_tool", "Unknown tool")
        with pytest.raises(ValueError, match="x"), observer.span("action", action):
            raise ValueError("x")
        observer.call(action, TOOL, None).ended(Result(status=Status.FAILED, code=f"made up {number}"))
    page = metrics.render()[0].decode()
    assert "made-up" not in page
    assert "made up" not in page
    assert (
        value(
            metrics,
            names.MCP_SERVER_DURATION + "_count",
            mcp_method_name="tools/call",
            gen_ai_tool_name="",
            error_type="unknown_tool",
        )
        == 50
    )
    assert (
        value(
            metrics,
            names.MCP_SERVER_DURATION + "_count",
            mcp_method_name="tools/call",
            gen_ai_tool_name="",
            error_type="_OTHER",
        )
        == 50
    )


async def test_the_page_is_what_prometheus_reads(metrics: Metrics) -> None:
    observer = Observer(metrics, ManualClock())
    for action in (ACTION, TRANSFER):
        await play(observer, action)
    page = metrics.render()[0].decode()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    for name in (names.MODEL_DURATION, names.MODEL_TOKENS, names.TOOL_DURATION, names.MCP_SERVER_DURATION):
        samples = families[name].samples
        series: dict[tuple[str, ...], list[float]] = {}
        for sample in samples:
            key = tuple(value for label, value in sample.labels.items() if label != "le")
            if sample.name.endswith("_bucket"):
                series.setdefault(key, []).append(sample.value)
        for counts in series.values():
            assert counts == sorted(counts)
            assert counts[-1] >= 1
