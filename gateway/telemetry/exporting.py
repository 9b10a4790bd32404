"""What leaves for a collector, started and stopped as one. OpenTelemetry is imported only if something does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.settings import Settings
from gateway.telemetry.tracing import NoTracing, Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource


class Export:
    """The exports that run: `tracing` for the observer, `put_line` for the log (None: lines stay here)."""

    def __init__(
        self,
        tracing: Tracing,
        put_line: Callable[[str], None] | None = None,
        close: tuple[Callable[[], None], ...] = (),
    ) -> None:
        self.tracing = tracing
        self.put_line = put_line
        self._close = close

    async def aclose(self) -> None:
        """Send what is left, all signals at once and for a few seconds at most."""
        await asyncio.gather(self.tracing.aclose(), *(asyncio.to_thread(close) for close in self._close))


def start_export(
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    *,
    service_name: str,
    version: str = "",
    environment: str = "",
    replica_id: str = "",
) -> Export:
    """Begin to export as `settings` say. `replica_id` becomes the instance of the service.

    Raises Refusal `invalid_configuration` if what that needs is not installed.
    """
    if not settings.wanted:
        return Export(NoTracing())
    try:
        from gateway.telemetry import otel_sdk

        of = otel_sdk.resource(
            service_name=service_name, version=version, environment=environment, replica_id=replica_id
        )
        return _start(settings, metrics, clock, of)
    except ModuleNotFoundError as error:
        raise Refusal(
            "invalid_configuration",
            f"Telemetry is to be exported, but {error.name} is not installed; install opentelemetry-sdk and"
            " opentelemetry-exporter-otlp-proto-http, or unset OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_*_EXPORTER.",
        ) from error


def _start(settings: Settings, metrics: Metrics, clock: Clock, of: Resource) -> Export:
    from gateway.telemetry import otel, otel_sdk
    from gateway.telemetry.outbox import Outbox

    tracing: Tracing = NoTracing()
    if settings.traces != "none":
        provider = otel_sdk.provider(of, otel_sdk.sampler(settings.sampler, settings.ratio))
        if settings.traces == "console":
            to_console = Outbox("traces", otel_sdk.to_console(), metrics, settings.spans)
            provider.add_span_processor(otel_sdk.SpansToOutbox(to_console))
        else:
            from gateway.telemetry.otlp import span_export

            provider.add_span_processor(
                span_export(settings.traces_endpoint, settings.timeout_s, metrics, settings.spans)
            )
        tracing = otel.SdkTracing(provider)
    closing: list[Callable[[], None]] = []
    put_line: Callable[[str], None] | None = None
    if settings.metrics == "otlp":
        from gateway.telemetry.otlp import MetricExport

        every_s, timeout_s = settings.metrics_every_s, settings.timeout_s
        closing.append(
            MetricExport(settings.metrics_endpoint, timeout_s, of, metrics.registry, metrics, clock, every_s).close
        )
    if settings.logs == "otlp":
        from gateway.telemetry.otlp import LogExport

        lines = LogExport(settings.logs_endpoint, settings.timeout_s, of, metrics, settings.lines)
        put_line = lines.put
        closing.append(lines.close)
    return Export(tracing, put_line, tuple(closing))
