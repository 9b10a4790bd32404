"""What reaches a collector, and what a collector that is gone, slow or rude does to the gateway: nothing."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from gateway.clock import SystemClock
from gateway.telemetry import Export, Logs, Metrics, Observer, acting, configure_logs, names, start_export
from gateway.telemetry.outbox import Bounds, Outbox
from gateway.telemetry.settings import read
from tests.e2e.gateway_process import within
from tests.telemetry.house import ACTION, TRANSFER, play
from tests.telemetry.receiver import Collector, plain


def start(collector: Collector | str, counts: Metrics, **more: Any) -> Export:
    """Everything to a collector, as the variables would say it."""
    base = collector if isinstance(collector, str) else collector.url
    settings = read({"OTEL_EXPORTER_OTLP_ENDPOINT": base, "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5"})
    return start_export(
        settings._replace(**more), counts, SystemClock(), service_name="gw", version="9", replica_id="replica-1"
    )


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), version="1.2.3")


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(name, labels)
    return 0.0 if found is None else found


# ------------------------------------------------------------ to a collector


async def test_all_three_signals_reach_a_collector_before_the_stop_is_over(
    collector: Collector, metrics: Metrics
) -> None:
    export = start(collector, metrics)
    observer = Observer(metrics, SystemClock(), export.tracing)
    await play(observer, ACTION)
    await play(observer, TRANSFER)
    assert export.put_line is not None
    export.put_line('{"ts":"2026-11-22T12:00:00.000000Z","level":"warning","event":"slow","logger":"gateway"}')
    await export.aclose()
    assert len(collector.spans()) == 8
    (line,) = collector.lines()
    assert line.body.string_value == "slow"
    told = collector.metrics()
    for name in set(names.OTLP_NAME.values()) - {
        names.OTLP_NAME[names.MODEL_NEXT_CHUNK],
        names.OTLP_NAME[names.MODEL_FIRST_CHUNK],
    }:
        assert name in told
    (duration,) = told["gen_ai.client.operation.duration"].histogram.data_points
    assert plain(duration.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-demo",
    }
    assert (duration.count, sum(duration.bucket_counts)) == (1, 1)
    assert len(duration.bucket_counts) == len(duration.explicit_bounds) + 1
    assert list(duration.explicit_bounds)[:3] == [0.01, 0.02, 0.04]
    assert told["gen_ai.client.operation.duration"].unit == "s"
    assert told["gen_ai.client.token.usage"].unit == "{token}"
    assert told["gateway.actions"].sum.is_monotonic
    assert told["gateway.actions"].sum.data_points[0].as_double == 1
    assert {resource["service.instance.id"] for resource in collector.resources()} == {"replica-1"}
    assert {resource["service.name"] for resource in collector.resources()} == {"gw"}
    assert value(metrics, names.EXPORT_ITEMS, signal="traces") == 8
    assert value(metrics, names.EXPORT_ITEMS, signal="logs") == 1


async def test_metrics_are_sent_as_often_as_asked_for(collector: Collector, metrics: Metrics) -> None:
    export = start(collector, metrics, metrics_every_s=0.1, traces="none", logs="none")
    within(lambda: "gateway.build_info" in collector.metrics(), "the first metrics")
    metrics.action("model.invoke", "allow", "succeeded")
    within(lambda: "gateway.actions" in collector.metrics(), "the next metrics")
    await export.aclose()


async def test_a_gauge_that_fails_costs_one_round_and_not_the_export(collector: Collector, metrics: Metrics) -> None:
    answers = iter([RuntimeError("Set changed size during iteration")])

    def depth() -> float:
        for fault in answers:
            raise fault
        return 7.0

    metrics.watch({names.AUDIT_QUEUE: depth})
    export = start(collector, metrics, metrics_every_s=0.05, traces="none", logs="none")
    within(lambda: "gateway.audit_queue_depth" in collector.metrics(), "the next round")
    await export.aclose()
    assert value(metrics, names.EXPORT_LOST, signal="metrics", reason="failed") == 1


async def test_what_opentelemetry_variables_say_of_us_goes_before_what_we_say(
    collector: Collector, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,k8s.pod.name=a")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "payments-gateway")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector")
    export = start(collector, metrics)
    await play(Observer(metrics, SystemClock(), export.tracing), ACTION)
    await export.aclose()
    for resource in collector.resources():
        assert resource["service.name"] == "payments-gateway"
        assert resource["deployment.environment.name"] == "prod"
        assert resource["k8s.pod.name"] == "a"
        assert resource["service.version"] == "9"
    assert {headers["authorization"] for headers in collector.headers} == {"Bearer collector"}


# ------------------------------------------------------------ log lines


@pytest.fixture
def logs() -> Iterator[Logs]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    logs = configure_logs("info", stream=io.StringIO())
    yield logs
    logs.close()
    root.handlers[:], root.level = before
    logging.captureWarnings(False)
    structlog.reset_defaults()


async def test_log_lines_arrive_redacted_and_with_the_ids_of_their_action(
    collector: Collector, metrics: Metrics, logs: Logs
) -> None:
    export = start(collector, metrics)
    logs.also = export.put_line
    token = acting.set(ACTION)
    structlog.get_logger("gateway").error("key agw_0123456789abcdefghij refused", api_key="k", tries=3, parts=["a"])
    acting.reset(token)
    logging.getLogger("opentelemetry.exporter").warning("of the exporter itself")
    logging.getLogger("library").warning("outside")
    await export.aclose()
    first, second = collector.lines()
    assert first.body.string_value == "key [redacted] refused"
    assert (first.trace_id.hex(), first.span_id.hex()) == (ACTION.trace.trace_id, ACTION.trace.span_id)
    assert (first.severity_text, first.severity_number) == ("ERROR", 17)
    attributes = plain(first.attributes)
    assert attributes["api_key"] == "[redacted]"
    assert attributes["tries"] == 3
    assert attributes["parts"] == '["a"]'
    assert attributes["request_id"] == "request-1"
    assert abs(first.time_unix_nano - time.time_ns()) < 60 * 10**9
    assert second.body.string_value == "outside"
    assert not second.trace_id


# ------------------------------------------------------------ collectors that fail


async def test_a_collector_that_is_not_there_holds_nobody_up_and_is_counted(metrics: Metrics) -> None:
    export = start("http://127.0.0.1:9", metrics)
    observer = Observer(metrics, SystemClock(), export.tracing)
    began_s = time.monotonic()
    for _ in range(20):
        await play(observer, ACTION)
    assert time.monotonic() - began_s < 2
    await export.aclose()
    assert time.monotonic() - began_s < 15
    assert value(metrics, names.EXPORT_LOST, signal="traces", reason="failed") == 80
    assert value(metrics, names.EXPORT_LOST, signal="metrics", reason="failed") > 0
    assert value(metrics, names.EXPORT_ITEMS, signal="traces") == 0


async def test_a_collector_that_does_not_answer_fills_a_bounded_queue(collector: Collector, metrics: Metrics) -> None:
    collector.go.clear()
    export = start(collector, metrics, spans=Bounds(queue=8, batch=4, delay_s=0.01), metrics="none")
    observer = Observer(metrics, SystemClock(), export.tracing)
    await play(observer, ACTION)
    assert collector.asked.wait(10)
    began_s = time.monotonic()
    for _ in range(50):
        await play(observer, ACTION)
    assert time.monotonic() - began_s < 2, "nobody waits for a collector"
    assert value(metrics, names.EXPORT_LOST, signal="traces", reason="queue_full") >= 200 - 8 - 4
    began_s = time.monotonic()
    await export.aclose()
    assert time.monotonic() - began_s < 8
    collector.go.set()


async def test_that_an_export_fails_is_said_once_and_so_is_its_recovery(
    collector: Collector, metrics: Metrics, logs: Logs
) -> None:
    lines: list[dict[str, Any]] = []
    logs.also = lambda line: lines.append(json.loads(line))
    outcomes = iter([False, False, True, True])
    done = threading.Semaphore(0)

    def send(_: Sequence[int]) -> bool:
        taken = next(outcomes)
        done.release()
        return taken

    outbox: Outbox[int] = Outbox("traces", send, metrics, Bounds(batch=1, delay_s=60))
    for number in range(4):
        outbox.put(number)
    assert outbox.flush(10)
    outbox.close()
    said = [line["event"] for line in lines]
    assert said == ["telemetry_export_fails", "telemetry_export_recovered"]
    assert value(metrics, names.EXPORT_LOST, signal="traces", reason="failed") == 2
    assert value(metrics, names.EXPORT_ITEMS, signal="traces") == 2


def test_what_is_put_after_the_end_is_counted(metrics: Metrics) -> None:
    outbox: Outbox[int] = Outbox("logs", lambda _: True, metrics)
    outbox.close()
    outbox.put(1)
    assert value(metrics, names.EXPORT_LOST, signal="logs", reason="queue_full") == 1


def test_a_receiver_that_raises_does_not_end_the_thread(metrics: Metrics) -> None:
    def send(items: Sequence[int]) -> bool:
        if items[0] == 0:
            raise ValueError
        return True

    outbox: Outbox[int] = Outbox("logs", send, metrics, Bounds(batch=1))
    for number in range(3):
        outbox.put(number)
    assert outbox.flush(10)
    outbox.close()
    assert value(metrics, names.EXPORT_LOST, signal="logs", reason="failed") == 1
    assert value(metrics, names.EXPORT_ITEMS, signal="logs") == 2
