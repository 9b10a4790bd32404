"""The table of metrics: the one place that says what each means. `reference.py` writes the docs from it."""

from __future__ import annotations

from typing import NamedTuple

from gateway.telemetry import names

BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
"""Upper bounds in seconds: from a policy decision (50 us) to a long stream (5 min)."""
PEOPLE_BUCKETS_S = (1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
"""Upper bounds in seconds: from a reviewer at the screen to the next day."""
MODEL_BUCKETS_S = tuple(0.01 * 2**power for power in range(14))
"""The conventions' bounds for model calls, chunks and tools: 10 ms to 81.92 s."""
MCP_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""The conventions' bounds for MCP."""
TOKEN_BUCKETS = tuple(float(4**power) for power in range(14))
"""The conventions' bounds for tokens: 1 to 67,108,864."""


class Row(NamedTuple):
    """One metric. Labels have few values, all of ours or of the configuration.

    `attributes` are the labels' names in OTLP, where they are not the same.
    """

    type: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = BUCKETS_S  # of a histogram
    attributes: tuple[str, ...] = ()
    unit: str = ""  # as UCUM writes it


def _convention(
    meaning: str, attributes: tuple[str, ...], buckets: tuple[float, ...] = MODEL_BUCKETS_S, unit: str = "s"
) -> Row:
    return Row("histogram", meaning, tuple(map(names.label_of, attributes)), buckets, attributes, unit)


TABLE: dict[str, Row] = {
    names.ACTIONS: Row(
        "counter",
        "Actions that ended, by kind, policy effect (none: refused before a policy was asked) and status.",
        ("kind", "effect", "status"),
    ),
    names.REFUSALS: Row("counter", "Actions that were refused, by error code.", ("code",)),
    names.SOFT_BUDGETS: Row("counter", "Soft budgets that were passed, once a window, by kind of level.", ("level",)),
    names.RESERVATIONS_EXCEEDED: Row(
        "counter",
        "Model calls that cost more money or tokens than was reserved for them, by model alias: the model's price or "
        "max_output_tokens is too low, or its provider reports a usage that can't be.",
        ("model",),
    ),
    names.UNAUTHENTICATED: Row("counter", "Requests without a known credential; they make no action."),
    names.ACTION_DURATION: Row(
        "histogram",
        "Seconds from an action's arrival in the path to its end, refusals and waiting for people included.",
        ("kind",),
    ),
    names.STAGE_DURATION: Row(
        "histogram",
        "Seconds per stage of the path: decide (policy), intent (until the record is durable), perform (until the "
        "upstream answers or its stream begins).",
        ("stage",),
    ),
    names.POLICY_DURATION: Row("histogram", "Seconds per policy evaluation, those for lists and proposals included."),
    names.TOKENS: Row(
        "counter",
        "Tokens of model calls as the provider told them or, where it did not, as reserved; by model alias and "
        "type (input without cached_input, cached_input, output).",
        ("model", "type"),
    ),
    names.COST: Row("counter", "Cost of model calls in US dollars, estimates included, by model alias.", ("model",)),
    names.COST_ESTIMATED: Row(
        "counter",
        "The part of gateway_cost_usd_total that is estimated: the provider did not say what was used, or used "
        "something whose price is not known.",
        ("model",),
    ),
    names.STREAMS_OPEN: Row("gauge", "Streams that are being relayed now."),
    names.AUDIT_QUEUE: Row("gauge", "Records that wait for a commit."),
    names.AUDIT_COMMITS: Row("counter", "Group commits of the audit log."),
    names.AUDIT_LEAVES: Row("counter", "Records that were made durable."),
    names.AUDIT_COMMIT_DURATION: Row("histogram", "Seconds per group commit, until the disk has it."),
    names.AUDIT_UNSIGNED: Row("gauge", "Records that no signed checkpoint covers yet."),
    names.AUDIT_LATCHED: Row("gauge", "1 once the log could not be written; everything is refused until a restart."),
    names.APPROVALS_PENDING: Row("gauge", "Cases that wait for people."),
    names.APPROVALS_UNKNOWN: Row("gauge", "Cases whose outcome is not known; a person must reconcile them."),
    names.APPROVALS_WAITING: Row("gauge", "Callers that are held while people decide."),
    names.APPROVALS_DECISION: Row(
        "histogram",
        "Seconds from the opening of a case to its decision, by outcome (approved, denied, expired, cancelled, "
        "invalidated).",
        ("outcome",),
        PEOPLE_BUCKETS_S,
    ),
    names.LOG_LINES_DROPPED: Row("counter", "Log lines dropped because nobody read them in time."),
    names.MODEL_DURATION: _convention(
        "Seconds per model call, from the request to the provider until its answer or stream is complete.",
        (*names.MODEL_ATTRIBUTES, names.ERROR_TYPE),
    ),
    names.MODEL_TOKENS: _convention(
        "Tokens per model call that the provider told of, by type (input, output).",
        (*names.MODEL_ATTRIBUTES, names.GEN_AI_TOKEN_TYPE),
        TOKEN_BUCKETS,
        "{token}",
    ),
    names.MODEL_FIRST_CHUNK: _convention(
        "Seconds from a streamed model call's request to the first piece of its answer.", names.MODEL_ATTRIBUTES
    ),
    names.MODEL_NEXT_CHUNK: _convention(
        "Seconds that each further piece of a streamed answer was waited for.", names.MODEL_ATTRIBUTES
    ),
    names.TOOL_DURATION: _convention("Seconds per tool call that the gateway carried out.", names.TOOL_ATTRIBUTES),
    names.MCP_CLIENT_DURATION: _convention(
        "Seconds per MCP request to a tool server on behalf of an agent.", names.CALL_ATTRIBUTES, MCP_BUCKETS_S
    ),
    names.MCP_SERVER_DURATION: _convention(
        "Seconds per governed MCP request of an agent, waiting for people included; the tool is named where it exists.",
        names.SERVED_ATTRIBUTES,
        MCP_BUCKETS_S,
    ),
    names.EXPORT_ITEMS: Row(
        "counter", "Spans, log lines and rounds of metrics that a collector took, by signal.", ("signal",)
    ),
    names.EXPORT_LOST: Row(
        "counter",
        "Spans, log lines and rounds of metrics that no collector got, by signal and reason (queue_full, failed).",
        ("signal", "reason"),
    ),
    names.BUILD_INFO: Row("gauge", "Always 1; the label says which version runs.", ("version",)),
}

WATCHED = frozenset(
    {
        *(names.STREAMS_OPEN, names.AUDIT_QUEUE, names.AUDIT_UNSIGNED, names.AUDIT_LATCHED),
        *(names.APPROVALS_PENDING, names.APPROVALS_UNKNOWN, names.APPROVALS_WAITING),
    }
)
"""Gauges whose value somebody else holds; see `Metrics.watch`."""
