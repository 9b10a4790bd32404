"""OpenTelemetry's own variables, as far as the gateway reads them itself (the exporters read the rest).

Source: OpenTelemetry specification 1.50, "Environment Variable Specification" and "OTLP Exporter". Where it would
export by default, we don't: nothing leaves unless an endpoint or an exporter was named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, get_args
from urllib.parse import unquote

from gateway import known_secrets
from gateway.errors import Refusal
from gateway.telemetry.outbox import Bounds

Exporter = Literal["none", "console", "otlp"]

DEFAULT_ENDPOINT: Final = "http://localhost:4318"
PROTOCOL: Final = "http/protobuf"
_OTLP: Final = "OTEL_EXPORTER_OTLP"
VARIABLES: Final = frozenset(
    {
        *("OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_METRIC_EXPORT_INTERVAL"),
        *(f"OTEL_{signal}_EXPORTER" for signal in ("TRACES", "METRICS", "LOGS")),
        *(f"{_OTLP}_{signal}_ENDPOINT" for signal in ("TRACES", "METRICS", "LOGS")),
        *(f"{_OTLP}_{what}" for what in ("ENDPOINT", "PROTOCOL", "TIMEOUT", "HEADERS", "COMPRESSION")),
        *(f"{_OTLP}_{what}" for what in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")),
        *("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"),
        *(f"OTEL_BSP_{what}" for what in ("MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE", "SCHEDULE_DELAY")),
        *(f"OTEL_BLRP_{what}" for what in ("MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE", "SCHEDULE_DELAY")),
    }
)
"""The variables that mean something here, those that the SDK reads itself included."""
SAMPLERS: Final = (
    *("always_on", "always_off", "traceidratio"),
    *("parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"),
)


class Settings(NamedTuple):
    """What is exported, where to, and how much of it. An endpoint is the whole address of its signal."""

    traces: Exporter = "none"
    metrics: Exporter = "none"
    logs: Exporter = "none"
    traces_endpoint: str = f"{DEFAULT_ENDPOINT}/v1/traces"
    metrics_endpoint: str = f"{DEFAULT_ENDPOINT}/v1/metrics"
    logs_endpoint: str = f"{DEFAULT_ENDPOINT}/v1/logs"
    sampler: str = "parentbased_always_on"
    ratio: float = 1.0
    metrics_every_s: float = 60.0
    timeout_s: float = 5.0  # of one export
    spans: Bounds = Bounds()
    lines: Bounds = Bounds(delay_s=1.0)

    @property
    def wanted(self) -> bool:
        """Whether anything is exported."""
        return (self.traces, self.metrics, self.logs) != ("none", "none", "none")


def read(environ: Mapping[str, str]) -> Settings:
    """The settings. Raises Refusal `invalid_configuration` for what the gateway can't do. Empty counts as unset."""
    given = {name: value.strip() for name, value in environ.items() if name.startswith("OTEL_") and value.strip()}
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Settings()
    for name, value in given.items():
        if name.endswith("_HEADERS"):
            for number, header in enumerate(value.split(",")):
                known_secrets.remember(f"{name}[{number}]", unquote(header.partition("=")[2]).strip())
    sampler = given.get("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    if sampler not in SAMPLERS:
        raise _wrong("OTEL_TRACES_SAMPLER", sampler, f"take one of {', '.join(SAMPLERS)}")
    ratio = _number(given, "OTEL_TRACES_SAMPLER_ARG", 1.0) if sampler.endswith("ratio") else 1.0
    if not 0.0 <= ratio <= 1.0:
        raise _wrong("OTEL_TRACES_SAMPLER_ARG", str(ratio), "it is a share from 0 to 1")
    settings = Settings(
        traces=_exporter(given, "TRACES"),
        metrics=_exporter(given, "METRICS"),
        logs=_exporter(given, "LOGS"),
        traces_endpoint=_endpoint(given, "TRACES"),
        metrics_endpoint=_endpoint(given, "METRICS"),
        logs_endpoint=_endpoint(given, "LOGS"),
        sampler=sampler,
        ratio=ratio,
        metrics_every_s=max(0.1, _number(given, "OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1000),
        timeout_s=max(0.1, _number(given, "OTEL_EXPORTER_OTLP_TIMEOUT", 5.0)),
        spans=_bounds(given, "OTEL_BSP", 5000),
        lines=_bounds(given, "OTEL_BLRP", 1000),
    )
    for signal in ("TRACES", "METRICS", "LOGS"):
        if _exporter(given, signal) == "otlp":
            _check_protocol(given, signal)
    return settings


def _exporter(given: Mapping[str, str], signal: str) -> Exporter:
    name = f"OTEL_{signal}_EXPORTER"
    chosen = given.get(name, "").lower()
    if not chosen:
        named = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT" in given or "OTEL_EXPORTER_OTLP_ENDPOINT" in given
        return "otlp" if named else "none"
    if chosen == "prometheus" and signal == "METRICS":
        return "none"  # /metrics is always there
    for known in get_args(Exporter):
        if chosen == known and (chosen != "console" or signal == "TRACES"):
            exporter: Exporter = known
            return exporter
    raise _wrong(name, chosen, "take otlp or none")


def _endpoint(given: Mapping[str, str], signal: str) -> str:
    own = given.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    if own is not None:
        return own
    base = given.get("OTEL_EXPORTER_OTLP_ENDPOINT", DEFAULT_ENDPOINT)
    return f"{base.rstrip('/')}/v1/{signal.lower()}"


def _check_protocol(given: Mapping[str, str], signal: str) -> None:
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if name in given:
            if given[name] != PROTOCOL:
                raise _wrong(name, given[name], f"the gateway speaks {PROTOCOL}, to port 4318 of most collectors")
            return


def _bounds(given: Mapping[str, str], prefix: str, delay_ms: float) -> Bounds:
    queue = max(1, int(_number(given, f"{prefix}_MAX_QUEUE_SIZE", 2048)))
    batch = max(1, int(_number(given, f"{prefix}_MAX_EXPORT_BATCH_SIZE", 512)))
    return Bounds(queue, min(batch, queue), max(0.01, _number(given, f"{prefix}_SCHEDULE_DELAY", delay_ms) / 1000))


def _number(given: Mapping[str, str], name: str, default: float) -> float:
    if name not in given:
        return default
    try:
        return float(given[name])
    except ValueError:
        raise _wrong(name, given[name], "it is a number") from None


def _wrong(name: str, value: str, mend: str) -> Refusal:
    return Refusal("invalid_configuration", f"{name} is {value[:80]!r}, which can't be used: {mend}.")
