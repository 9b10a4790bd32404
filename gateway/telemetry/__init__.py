"""Telemetry: metrics, spans and logs of the path, and every name that appears in them.

Owns `/metrics`, the exporters and the log's form. Never carries content (prompts, arguments, results), a
secret, or a label that a caller can multiply: no user, no request id, no name that was not looked up.

Fails open, unlike every other room: what cannot be exported or written is dropped and counted, and the action
goes on. The audit log, not telemetry, is the record.
"""

from gateway.telemetry.exporting import Export, start_export
from gateway.telemetry.logs import Logs, acting, configure_logs
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observe import Observer
from gateway.telemetry.redaction import redact
from gateway.telemetry.trace import format_traceparent, parse_traceparent, trace_parser
from gateway.telemetry.tracing import NoTracing, Tracing

__all__ = [
    "Export",
    "Logs",
    "Metrics",
    "NoTracing",
    "Observer",
    "Tracing",
    "acting",
    "configure_logs",
    "format_traceparent",
    "parse_traceparent",
    "redact",
    "start_export",
    "trace_parser",
]
