"""Writes `docs/reference/metrics.md`: `python -m gateway.telemetry.reference > docs/reference/metrics.md`."""

from __future__ import annotations

from gateway.telemetry.table import BUCKETS_S, TABLE


def reference() -> str:
    """The text of `docs/reference/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "`/metrics` serves these in the Prometheus text format, beside the usual `process_*` and `python_gc_*`.",
        "No metric is labelled by user, request or argument. This page is written from the code by",
        "`python -m gateway.telemetry.reference > docs/reference/metrics.md`.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for name, row in TABLE.items():
        labels = ", ".join(f"`{label}`" for label in row.labels) or "–"
        lines.append(f"| `{name}` | {row.type} | {labels} | {row.meaning} |")
    lines += ["", f"Histograms have the upper bounds {_bounds(BUCKETS_S)} seconds."]
    own = [(name, row.buckets_s) for name, row in TABLE.items() if row.buckets_s != BUCKETS_S]
    lines += [f"Those of `{name}` are {_bounds(buckets_s)} seconds." for name, buckets_s in own]
    return "\n".join([*lines, ""])


def _bounds(buckets_s: tuple[float, ...]) -> str:
    return ", ".join(f"{bound:.10g}" for bound in buckets_s)


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - this is what the command is for
