"""What goes to a collector (OTLP over HTTP): spans, log lines and the values of `/metrics`, each by its own thread.

The metrics are those that Prometheus reads, read again: nothing is counted twice on the path. Imported only where a
collector is configured.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from gateway.clock import Clock
from gateway.telemetry import names
from gateway.telemetry.otel_sdk import SpansToOutbox
from gateway.telemetry.outbox import CLOSE_TIMEOUT_S, Bounds, Counts, Outbox, Receiver
from gateway.telemetry.table import TABLE, Row

_SCOPE = InstrumentationScope(names.SCOPE, schema_url=names.SCHEMA_URL)
_SEVERITY = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
_OF_THE_EXPORT = ("opentelemetry", "urllib3", "requests")
_OF_THE_RECORD = frozenset(("ts", "level", "event", "trace_id", "span_id"))

logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # `Receiver` says it once, not per batch


# ---------------------------------------------------------------- spans


def span_export(endpoint: str, timeout_s: float, counts: Counts, bounds: Bounds) -> SpansToOutbox:
    """Spans on their way to a collector."""
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=timeout_s)

    def send(spans: Sequence[ReadableSpan]) -> bool:
        return exporter.export(spans) is SpanExportResult.SUCCESS

    return SpansToOutbox(Outbox("traces", send, counts, bounds), exporter.shutdown)


# ---------------------------------------------------------------- log lines


class LogExport:
    """Log lines on their way to a collector, as they were written: what is redacted there is redacted here."""

    def __init__(self, endpoint: str, timeout_s: float, of: Resource, counts: Counts, bounds: Bounds) -> None:
        self._exporter = OTLPLogExporter(endpoint=endpoint, timeout=timeout_s)
        self._resource = of
        self._outbox: Outbox[str] = Outbox("logs", self._send, counts, bounds)

    def put(self, line: str) -> None:
        """Hand a line over; never waits."""
        self._outbox.put(line)

    def flush(self, timeout_s: float) -> bool:
        """Send what is held now."""
        return self._outbox.flush(timeout_s)

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        self._outbox.close()
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _send(self, lines: Sequence[str]) -> bool:
        told = [orjson.loads(line) for line in lines]
        records = [
            ReadableLogRecord(_record(line), self._resource, _SCOPE)
            for line in told
            if not str(line.get("logger")).startswith(_OF_THE_EXPORT)  # else a failure would feed itself
        ]
        return not records or self._exporter.export(records) is LogRecordExportResult.SUCCESS


def _record(line: Mapping[str, Any]) -> LogRecord:
    level = line.get("level", "")
    stamp = line.get("ts")
    at_ns = int(datetime.fromisoformat(stamp).timestamp() * 1_000_000) * 1000 if stamp else None
    return LogRecord(
        timestamp=at_ns,
        observed_timestamp=at_ns,
        context=_context(line.get("trace_id"), line.get("span_id")),
        severity_text=level.upper(),
        severity_number=_SEVERITY.get(level, SeverityNumber.UNSPECIFIED),
        body=line.get("event", ""),
        attributes={
            name: value if isinstance(value, str | bool | int | float) else orjson.dumps(value).decode()
            for name, value in line.items()
            if name not in _OF_THE_RECORD and value is not None
        },
    )


def _context(trace_id: object, span_id: object) -> Context:
    if not isinstance(trace_id, str) or not isinstance(span_id, str):
        return Context()
    of = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return trace.set_span_in_context(NonRecordingSpan(of), Context())


# ---------------------------------------------------------------- metrics


class MetricExport:
    """Sends the metrics of a registry every `every_s` seconds, and once more at the end."""

    def __init__(
        self,
        endpoint: str,
        timeout_s: float,
        of: Resource,
        registry: CollectorRegistry,
        counts: Counts,
        clock: Clock,
        every_s: float,
    ) -> None:
        self._exporter = OTLPMetricExporter(endpoint=endpoint, timeout=timeout_s)
        self._resource = of
        self._registry = registry
        self._receiver = Receiver("metrics", counts)
        self._clock = clock
        self._started_ns = clock.now_ns()
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="export-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send the last values, for a few seconds at most."""
        self._stop.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._send()
        self._send()

    def _send(self) -> None:
        self._receiver.send(self._export, 1)

    def _export(self) -> bool:
        metrics = list(of_registry(self._registry, self._started_ns, self._clock.now_ns()))
        scoped = [ScopeMetrics(_SCOPE, metrics, names.SCHEMA_URL)]
        data = MetricsData([ResourceMetrics(self._resource, scoped, self._resource.schema_url)])
        return self._exporter.export(data) is MetricExportResult.SUCCESS


def of_registry(registry: CollectorRegistry, started_ns: int, now_ns: int) -> Iterator[Metric]:
    """The metrics of the table as OTLP has them. Those of the Python process are for its collector to find."""
    for family in registry.collect():
        name = family.name + "_total" if family.type == "counter" else family.name
        row = TABLE.get(name)
        if row is None:
            continue
        unit = row.unit or ("s" if name.endswith("_seconds") else "")
        points = _POINTS[row.type](row, family.samples, started_ns, now_ns)
        yield Metric(names.otlp_name(name), row.meaning, unit, points)


def _attributes(row: Row, labels: Mapping[str, str]) -> dict[str, str]:
    called = dict(zip(row.labels, row.attributes, strict=True)) if row.attributes else {}
    return {called.get(label, label): value for label, value in labels.items() if value and label != "le"}


def _numbers(row: Row, samples: Iterable[Sample], started_ns: int, now_ns: int) -> list[NumberDataPoint]:
    return [NumberDataPoint(_attributes(row, one.labels), started_ns, now_ns, one.value) for one in samples]


def _sum(row: Row, samples: Iterable[Sample], started_ns: int, now_ns: int) -> Sum:
    return Sum(_numbers(row, samples, started_ns, now_ns), AggregationTemporality.CUMULATIVE, is_monotonic=True)


def _gauge(row: Row, samples: Iterable[Sample], started_ns: int, now_ns: int) -> Gauge:
    return Gauge(_numbers(row, samples, started_ns, now_ns))


def _histogram(row: Row, samples: Iterable[Sample], started_ns: int, now_ns: int) -> Histogram:
    """Prometheus counts up to a bound, OTLP between bounds."""
    series: dict[tuple[str, ...], tuple[dict[str, str], list[int], list[float]]] = {}
    for one in samples:
        key = tuple(value for label, value in one.labels.items() if label != "le")
        _, counts, total = series.setdefault(key, (one.labels, [], []))
        if one.name.endswith("_bucket"):
            counts.append(int(one.value) - sum(counts))
        elif one.name.endswith("_sum"):
            total.append(one.value)
    points = [
        HistogramDataPoint(
            attributes=_attributes(row, labels),
            start_time_unix_nano=started_ns,
            time_unix_nano=now_ns,
            count=sum(counts),
            sum=total[0] if total else 0.0,
            bucket_counts=counts,
            explicit_bounds=row.buckets,
            min=None,  # type: ignore[arg-type]  # not known; optional in OTLP
            max=None,  # type: ignore[arg-type]
        )
        for labels, counts, total in series.values()
    ]
    return Histogram(points, AggregationTemporality.CUMULATIVE)


_POINTS: dict[str, Callable[[Row, Iterable[Sample], int, int], Any]] = {
    "counter": _sum,
    "gauge": _gauge,
    "histogram": _histogram,
}
