"""OpenTelemetry's own variables mean here what they mean."""

from __future__ import annotations

import pytest

from gateway.errors import Refusal
from gateway.telemetry.outbox import Bounds
from gateway.telemetry.settings import Settings, read


def test_nothing_leaves_unless_a_place_was_named() -> None:
    assert not read({}).wanted
    assert not read({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}).wanted
    assert not read({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}).wanted


def test_an_endpoint_is_for_all_signals_unless_one_is_switched_off_or_has_its_own() -> None:
    settings = read(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/base/",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "https://logs.test/in",
            "OTEL_METRICS_EXPORTER": "none",
        }
    )
    assert (settings.traces, settings.metrics, settings.logs) == ("otlp", "none", "otlp")
    assert settings.traces_endpoint == "http://c:4318/base/v1/traces"
    assert settings.logs_endpoint == "https://logs.test/in"
    assert read({"OTEL_TRACES_EXPORTER": "otlp"}).traces_endpoint == "http://localhost:4318/v1/traces"
    assert read({"OTEL_METRICS_EXPORTER": "prometheus"}).metrics == "none"
    assert read({"OTEL_TRACES_EXPORTER": "console"}).traces == "console"


def test_sampling_bounds_and_intervals_are_read() -> None:
    settings = read(
        {
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "OTEL_METRIC_EXPORT_INTERVAL": "15000",
            "OTEL_BSP_MAX_QUEUE_SIZE": "100",
            "OTEL_BSP_SCHEDULE_DELAY": "250",
            "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "10",
        }
    )
    assert (settings.sampler, settings.ratio) == ("parentbased_traceidratio", 0.25)
    assert settings.metrics_every_s == 15
    assert settings.spans == Bounds(100, 100, 0.25)
    assert settings.lines == Bounds(2048, 10, 1.0)
    assert read({"OTEL_TRACES_SAMPLER": "always_on", "OTEL_TRACES_SAMPLER_ARG": "x"}) == Settings(sampler="always_on")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_LOGS_EXPORTER", "console"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "often"),
    ],
)
def test_what_the_gateway_can_not_do_is_said_at_start(name: str, wrong: str) -> None:
    with pytest.raises(Refusal, match=name) as refused:
        read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", name: wrong})
    assert refused.value.code == "invalid_configuration"
    assert wrong in refused.value.message
    with pytest.raises(Refusal, match="OTEL_TRACES_SAMPLER_ARG"):
        read({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "7"})
