"""Writes `docs/reference/metrics.md`: `python -m gateway.telemetry.reference > docs/reference/metrics.md`."""

from __future__ import annotations

from gateway.telemetry import names
from gateway.telemetry.table import BUCKETS_S, TABLE, TOKEN_BUCKETS


def reference() -> str:
    """The text of `docs/reference/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "`/metrics` serves these in the Prometheus text format, beside the usual `process_*` and `python_gc_*`.",
        "No metric is labelled by user, request or argument. Where a collector is configured",
        "(docs/how-to/observe.md), the same values go there under their name in OTLP. This page is written from the",
        "code by `python -m gateway.telemetry.reference > docs/reference/metrics.md`.",
        "",
        "| metric | in OTLP | type | labels | meaning |",
        "|---|---|---|---|---|",
    ]
    for name, row in TABLE.items():
        labels = ", ".join(f"`{label}`" for label in row.labels) or "–"
        lines.append(f"| `{name}` | `{names.otlp_name(name)}` | {row.type} | {labels} | {row.meaning} |")
    lines += ["", f"Histograms have the upper bounds {_bounds(BUCKETS_S)} seconds."]
    for buckets in dict.fromkeys(row.buckets for row in TABLE.values() if row.buckets != BUCKETS_S):
        own = ", ".join(f"`{name}`" for name, row in TABLE.items() if row.buckets == buckets)
        unit = "tokens" if buckets == TOKEN_BUCKETS else "seconds"
        lines.append(f"Those of {own} are {_bounds(buckets)} {unit}.")
    lines += ["", "In OTLP, labels of the conventions have dots: `gen_ai_tool_name` is `gen_ai.tool.name`."]
    return "\n".join([*lines, ""])


def _bounds(buckets: tuple[float, ...]) -> str:
    return ", ".join(f"{bound:.10g}" for bound in buckets)


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - this is what the command is for
