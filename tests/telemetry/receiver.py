"""A collector in the test's own process: OTLP over HTTP, kept as the protobuf messages that came."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_KINDS: dict[str, Any] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


class SeenSpan(NamedTuple):
    """A span in plain values."""

    name: str
    kind: str
    trace_id: str
    id: str
    parent: str
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    is_error: bool
    state: str
    took_s: float


class Collector:
    """`with Collector() as collector`: takes everything at `collector.url`, or as `status` and `go` say."""

    def __init__(self) -> None:
        self.status = 200
        self.go = threading.Event()  # cleared, nothing is answered
        self.go.set()
        self.asked = threading.Event()
        self.headers: list[dict[str, str]] = []
        self._received: list[Any] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                collector.asked.set()
                collector.go.wait(30)
                if collector.status == 200:
                    message = _KINDS[self.path]()
                    message.ParseFromString(body)
                    collector._received.append(message)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[SeenSpan]:
        """In the order in which they ended."""
        raw = [
            span
            for message in self._received
            if isinstance(message, ExportTraceServiceRequest)
            for of_resource in message.resource_spans
            for scope in of_resource.scope_spans
            for span in scope.spans
        ]
        return [_span(one) for one in sorted(raw, key=lambda one: one.end_time_unix_nano)]

    def metrics(self) -> dict[str, Any]:
        """The newest of each, by name."""
        return {
            metric.name: metric
            for message in self._received
            if isinstance(message, ExportMetricsServiceRequest)
            for of_resource in message.resource_metrics
            for scope in of_resource.scope_metrics
            for metric in scope.metrics
        }

    def lines(self) -> list[Any]:
        return [
            record
            for message in self._received
            if isinstance(message, ExportLogsServiceRequest)
            for of_resource in message.resource_logs
            for scope in of_resource.scope_logs
            for record in scope.log_records
        ]

    def resources(self) -> list[dict[str, Any]]:
        """The resource of each message."""
        found = []
        for message in self._received:
            if isinstance(message, ExportTraceServiceRequest):
                found += [one.resource for one in message.resource_spans]
            elif isinstance(message, ExportMetricsServiceRequest):
                found += [one.resource for one in message.resource_metrics]
            elif isinstance(message, ExportLogsServiceRequest):
                found += [one.resource for one in message.resource_logs]
        return [plain(one.attributes) for one in found]


def plain(attributes: Any) -> dict[str, Any]:
    """Attributes in plain values."""
    found: dict[str, Any] = {}
    pair: KeyValue
    for pair in attributes:
        found[pair.key] = _value(pair.value)
    return found


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


def _span(span: Span) -> SeenSpan:
    return SeenSpan(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes=plain(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        is_error=span.status.code == 2,
        state=span.trace_state,
        took_s=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )
