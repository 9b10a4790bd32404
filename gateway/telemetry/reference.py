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
    bounds = ", ".join(f"{bound:g}" for bound in BUCKETS_S)
    lines += ["", f"Histograms have the upper bounds {bounds} seconds.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - this is what the command is for
