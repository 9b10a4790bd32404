"""Prometheus metrics of one process. Children are made once and kept: a look-up of labels costs four times more.

Values that somebody else holds already (queue depth, open streams) are asked for at scrape time and cost the path
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from gateway.actions import NANOUSD_PER_USD, Cost, Kind, Status
from gateway.errors import CODES
from gateway.telemetry import names
from gateway.telemetry.table import TABLE, WATCHED

OTHER_CODE = "other"
"""Stands for a code that is not of `errors.CODES`, so that no label comes from outside."""
_ERRORS = frozenset((*CODES, "", names.TOOL_ERROR, *Status))


class ModelSeries:
    """The kept histograms of calls to one model of one provider."""

    def __init__(self, made: Mapping[str, Histogram], provider: str, model: str) -> None:
        self._labels = (names.CHAT, provider, model)
        self._durations = made[names.MODEL_DURATION]
        self._duration_of: dict[str, Histogram] = {}
        self.first_chunk = made[names.MODEL_FIRST_CHUNK].labels(*self._labels)
        self.next_chunk = made[names.MODEL_NEXT_CHUNK].labels(*self._labels)
        self.input_tokens = made[names.MODEL_TOKENS].labels(*self._labels, names.INPUT)
        self.output_tokens = made[names.MODEL_TOKENS].labels(*self._labels, names.OUTPUT)

    def duration(self, error: str) -> Histogram:
        """Of calls that ended with that error; empty: with none."""
        child = self._duration_of.get(error)
        if child is None:
            child = self._duration_of[error] = self._durations.labels(*self._labels, error)
        return child


class ToolSeries(NamedTuple):
    """The kept histograms of calls of one tool that ended alike."""

    execute: Histogram
    request: Histogram


class Metrics:
    """All metrics, on a registry of their own."""

    def __init__(self, registry: CollectorRegistry, *, version: str = "") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # else a second series for every counter that only says when it was made
        self.registry = registry
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._actions = self._counter(names.ACTIONS)
        self._refusals = self._counter(names.REFUSALS)
        self._soft_budgets = self._counter(names.SOFT_BUDGETS)
        self._reservations_exceeded = self._counter(names.RESERVATIONS_EXCEEDED)
        self._tokens = self._counter(names.TOKENS)
        self._cost = self._counter(names.COST)
        self._cost_estimated = self._counter(names.COST_ESTIMATED)
        self._durations = self._histogram(names.ACTION_DURATION)
        stages = self._histogram(names.STAGE_DURATION)
        self._gauge(names.BUILD_INFO).labels(version=version).set(1)
        self.unauthenticated: Callable[[], None] = self._counter(names.UNAUTHENTICATED).inc
        """Count a request that nobody could be held to."""
        self.policy_evaluated: Callable[[float], None] = self._histogram(names.POLICY_DURATION).observe
        """Note how long one evaluation took, in seconds."""
        self._commits = self._counter(names.AUDIT_COMMITS)
        self._leaves = self._counter(names.AUDIT_LEAVES)
        self._commit_duration = self._histogram(names.AUDIT_COMMIT_DURATION)
        self._log_drops = self._counter(names.LOG_LINES_DROPPED)
        self._case_decisions = self._histogram(names.APPROVALS_DECISION)
        self._action_of: dict[tuple[str, str, str], Counter] = {}
        self._refusal_of: dict[str, Counter] = {}
        self._duration_of: dict[str, Histogram] = {}
        self._of_conventions = {name: self._histogram(name) for name in names.OTLP_NAME}
        self._model_of: dict[tuple[str, str], ModelSeries] = {}
        self._tool_of: dict[tuple[str, str, str], ToolSeries] = {}
        self._served_of: dict[tuple[str, str, str], Histogram] = {}
        self._exported = self._counter(names.EXPORT_ITEMS)
        self._lost = self._counter(names.EXPORT_LOST)
        self._spend_of: dict[str, tuple[Counter, Counter, Counter, Counter, Counter]] = {}
        self.stage_of: Mapping[str, Histogram] = {stage: stages.labels(stage=stage) for stage in names.STAGES}
        """The kept histogram of each stage; `observe` takes seconds."""
        for code in (*CODES, OTHER_CODE):
            self._refusal_of[code] = self._refusals.labels(code=code)

    # ------------------------------------------------------------ the path

    def action(self, kind: str, effect: str, status: str) -> None:
        """Count an action that ended. `effect` is a policy effect, or `none` where no policy was asked."""
        key = (kind, effect, status)
        child = self._action_of.get(key)
        if child is None:
            child = self._action_of[key] = self._actions.labels(kind=kind, effect=effect, status=status)
        child.inc()

    def duration_of(self, kind: str) -> Histogram:
        """The kept histogram of whole actions of a kind; `observe` takes seconds."""
        child = self._duration_of.get(kind)
        if child is None:
            child = self._duration_of[kind] = self._durations.labels(kind=kind)
        return child

    def refusal(self, code: str) -> None:
        """Count a refusal by its code."""
        self._refusal_of.get(code, self._refusal_of[OTHER_CODE]).inc()

    def spent(self, model: str, cost: Cost) -> None:
        """Count the tokens and the cost of a model call. `model` is an alias that was looked up."""
        children = self._spend_of.get(model)
        if children is None:
            children = self._spend_of[model] = (
                self._tokens.labels(model=model, type="input"),
                self._tokens.labels(model=model, type="cached_input"),
                self._tokens.labels(model=model, type="output"),
                self._cost.labels(model=model),
                self._cost_estimated.labels(model=model),
            )
        usage = cost.usage
        fresh, cached, output, usd, estimated = children
        fresh.inc(max(0, usage.input_tokens - usage.cached_input_tokens))
        if usage.cached_input_tokens:
            cached.inc(usage.cached_input_tokens)
        output.inc(usage.output_tokens)
        # A float for people's graphs; budgets and records count in integers.
        usd.inc(cost.nanousd / NANOUSD_PER_USD)
        if cost.estimated:
            estimated.inc(cost.nanousd / NANOUSD_PER_USD)

    # ------------------------------------------------------------ after the conventions

    def model(self, provider: str, model: str) -> ModelSeries:
        """The series of a model of the configuration."""
        kept = self._model_of.get((provider, model))
        if kept is None:
            kept = self._model_of[provider, model] = ModelSeries(self._of_conventions, provider, model)
        return kept

    def tool(self, server: str, tool: str, error: str) -> ToolSeries:
        """The series of a tool that was looked up, for calls that ended with `error` (empty: none)."""
        kept = self._tool_of.get((server, tool, error))
        if kept is None:
            method = names.METHOD_OF_KIND[Kind.TOOL_CALL]
            kept = self._tool_of[server, tool, error] = ToolSeries(
                self._of_conventions[names.TOOL_DURATION].labels(tool, server, error),
                self._of_conventions[names.MCP_CLIENT_DURATION].labels(method, tool, server, error),
            )
        return kept

    def served(self, method: str, tool: str, error: str) -> Histogram:
        """Of MCP requests that agents made; `tool` is one that was looked up, or empty."""
        key = (method, tool, error)
        kept = self._served_of.get(key)
        if kept is None:
            kept = self._served_of[key] = self._of_conventions[names.MCP_SERVER_DURATION].labels(*key)
        return kept

    # ------------------------------------------------------------ beside the path

    def soft_budget_passed(self, level: str) -> None:
        """Count a soft budget that was passed, by the kind of its level."""
        self._soft_budgets.labels(level=level).inc()

    def reservation_exceeded(self, model: str) -> None:
        """Count a call that cost more than was reserved. `model` is an alias that was looked up."""
        self._reservations_exceeded.labels(model=model).inc()

    def exported(self, signal: str, count: int) -> None:
        """Count what a collector took. Safe from any thread."""
        self._exported.labels(signal=signal).inc(count)

    def export_lost(self, signal: str, reason: str, count: int) -> None:
        """Count what no collector will get. Safe from any thread."""
        self._lost.labels(signal=signal, reason=reason).inc(count)

    def audit_committed(self, leaves: int, duration_s: float) -> None:
        """Count a group commit of that many records. Safe from the writer's thread."""
        self._commits.inc()
        self._leaves.inc(leaves)
        self._commit_duration.observe(duration_s)

    def case_decided(self, outcome: str, waited_s: float) -> None:
        """Count a case that people, time or policy decided, and how long it waited for that."""
        self._case_decisions.labels(outcome=outcome).observe(waited_s)

    def log_line_dropped(self) -> None:
        """Count a log line that nobody will read. Safe from any thread."""
        self._log_drops.inc()

    def watch(self, sources: Mapping[str, Callable[[], float]]) -> None:
        """Ask these functions at each scrape; keys are names of `table.WATCHED`.

        They must be quick, and safe from any thread.
        """
        for name, read in sources.items():
            if name not in WATCHED:
                raise ValueError(f"{name} is not a metric that is asked for; take one of {sorted(WATCHED)}.")
            self._gauge(name).set_function(read)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The body and the content type of `/metrics`, in the form that the `Accept` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    # ------------------------------------------------------------ making them

    def _counter(self, name: str) -> Counter:
        row = TABLE[name]
        return Counter(name, row.meaning, row.labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        row = TABLE[name]
        return Gauge(name, row.meaning, row.labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        row = TABLE[name]
        return Histogram(name, row.meaning, row.labels, registry=self.registry, buckets=row.buckets)


def error_label(code: str | None) -> str:
    """An error as a label: one of ours, or the convention's word for any other."""
    return code if code in _ERRORS and code is not None else names.OTHER_ERROR
