"""`gateway serve` with a collector: metrics and log lines leave too, and a collector that is stuck changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fixtures import House, open_house
from tests.e2e.gateway_process import within
from tests.telemetry.receiver import Collector, plain


@pytest.fixture
def house(tmp_path: Path, collector: Collector) -> Iterator[House]:
    with open_house(tmp_path, ledger=False, start=False) as house:
        house.gateway.environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_BSP_MAX_QUEUE_SIZE": "16",
            "OTEL_BLRP_SCHEDULE_DELAY": "50",
        }
        yield house


def test_metrics_log_lines_and_spans_leave_while_it_runs(house: House, collector: Collector) -> None:
    gateway = house.gateway.start()
    agent = house.agent()
    assert agent.chat("Hello", model="demo", stream=True).status_code == 200
    within(lambda: any(span.kind == "SERVER" for span in collector.spans()), "the spans")

    def counted() -> bool:
        told = collector.metrics().get("gen_ai.client.operation.duration")
        return told is not None and any(point.count == 1 for point in told.histogram.data_points)

    within(counted, "the metrics")
    within(lambda: any(line.body.string_value == "ready" for line in collector.lines()), "the log")
    page = gateway.get("/metrics").text
    assert "gen_ai_client_operation_duration_seconds_count{" in page
    assert 'gateway_telemetry_exported_total{signal="traces"}' in page
    assert gateway.stop() == 0
    (instance,) = {resource["service.instance.id"] for resource in collector.resources()}
    assert instance
    told = collector.metrics()["gateway.actions"].sum.data_points
    assert {plain(point.attributes)["kind"] for point in told} == {"model.invoke"}


def test_a_collector_that_is_stuck_holds_up_neither_an_action_nor_the_end(house: House, collector: Collector) -> None:
    collector.go.clear()
    house.gateway.start()
    agent = house.agent()
    assert agent.chat("warm").status_code == 200
    assert collector.asked.wait(20)
    began_s = time.monotonic()
    for _ in range(30):
        assert agent.chat("Hello").status_code == 200
    assert time.monotonic() - began_s < 10
    assert 'gateway_telemetry_lost_total{reason="queue_full",signal="traces"}' in house.gateway.get("/metrics").text
    began_s = time.monotonic()
    assert house.gateway.stop() == 0
    assert time.monotonic() - began_s < 15


def test_a_variable_that_can_not_be_followed_is_said_at_start(house: House) -> None:
    house.gateway.environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
    process = house.gateway.launch()
    assert house.gateway.wait_ended() == process.returncode == 1
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in house.gateway.lines[-1]
