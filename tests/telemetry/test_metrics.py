"""Metrics: what is counted, what the page looks like, and that the docs say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway.actions import Cost, Decision, Effect, Kind, Result, Status, Usage
from gateway.clock import ManualClock
from gateway.errors import CODES, Refusal
from gateway.telemetry import Metrics, Observer, names
from gateway.telemetry.logs import acting
from gateway.telemetry.reference import reference
from gateway.telemetry.table import TABLE, WATCHED
from tests.telemetry.house import ACTION, act

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), version="1.2.3")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_the_reference_page_is_what_the_code_says() -> None:
    assert DOCS.read_text() == reference(), "python -m gateway.telemetry.reference > docs/reference/metrics.md"


def test_every_metric_of_the_table_is_served_and_no_other_of_ours(metrics: Metrics) -> None:
    metrics.watch(dict.fromkeys(WATCHED, lambda: 0.0))
    metrics.action("model.invoke", "allow", "succeeded")
    metrics.duration_of("model.invoke").observe(1)
    metrics.spent("demo", Cost())
    metrics.case_decided("approved", 12.5)
    metrics.model("openai", "gpt").duration("").observe(1)
    metrics.tool("ledger", "transfer", "")
    metrics.served("tools/call", "", "unknown_tool")
    metrics.exported("traces", 1)
    metrics.export_lost("logs", "failed", 1)
    metrics.soft_budget_passed("agent")
    metrics.reservation_exceeded("demo")
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    served = {family.name: family for family in text_string_to_metric_families(body.decode())}
    ours = {name for name in served if name.startswith(("gateway_", "gen_ai_", "mcp_"))}
    assert ours == {name.removesuffix("_total") for name in TABLE}
    for name, row in TABLE.items():
        family = served[name.removesuffix("_total")]
        assert family.type == row.type
        assert family.documentation == row.meaning
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels == set(row.labels)
    assert "process_resident_memory_bytes" in served


def test_no_metric_is_labelled_by_what_a_caller_can_multiply() -> None:
    labels = {label for row in TABLE.values() for label in row.labels}
    of_ours = {
        "kind",
        "effect",
        "status",
        "code",
        "stage",
        "model",
        "type",
        "version",
        "outcome",
        "signal",
        "reason",
        "level",
    }
    of_conventions = {
        *("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"),
        *("gen_ai_tool_name", "gateway_tool_server", "mcp_method_name", "error_type"),
    }
    assert labels == of_ours | of_conventions


def test_a_scraper_that_asks_for_open_metrics_gets_it(metrics: Metrics) -> None:
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_spend_is_counted_by_model_in_tokens_and_dollars(metrics: Metrics) -> None:
    usage = Usage(input_tokens=100, cached_input_tokens=30, output_tokens=7)
    metrics.spent("demo", Cost(nanousd=1_500_000_000, usage=usage))
    metrics.spent("demo", Cost(nanousd=250_000_000, usage=Usage(input_tokens=1)))
    assert value(metrics, names.TOKENS, model="demo", type="input") == 71
    assert value(metrics, names.TOKENS, model="demo", type="cached_input") == 30
    assert value(metrics, names.TOKENS, model="demo", type="output") == 7
    assert value(metrics, names.COST, model="demo") == 1.75


def test_every_code_has_its_counter_and_a_strange_one_makes_no_label(metrics: Metrics) -> None:
    for code in CODES:
        assert value(metrics, names.REFUSALS, code=code) == 0
    metrics.refusal("rate_limited")
    metrics.refusal("made up by somebody")
    assert value(metrics, names.REFUSALS, code="rate_limited") == 1
    assert value(metrics, names.REFUSALS, code="other") == 1
    assert value(metrics, names.REFUSALS, code="made up by somebody") is None


def test_gauges_ask_at_scrape_time(metrics: Metrics) -> None:
    depth = [3.0]
    metrics.watch({names.AUDIT_QUEUE: lambda: depth[0]})
    assert value(metrics, names.AUDIT_QUEUE) == 3
    depth[0] = 5
    assert value(metrics, names.AUDIT_QUEUE) == 5
    with pytest.raises(ValueError, match="gateway_typo"):
        metrics.watch({"gateway_typo": lambda: 0.0})


def test_what_happens_beside_the_path_is_counted(metrics: Metrics) -> None:
    metrics.unauthenticated()
    metrics.policy_evaluated(0.00007)
    metrics.audit_committed(12, 0.0006)
    metrics.log_line_dropped()
    assert value(metrics, names.UNAUTHENTICATED) == 1
    assert value(metrics, names.POLICY_DURATION + "_count") == 1
    assert value(metrics, names.AUDIT_COMMITS) == 1
    assert value(metrics, names.AUDIT_LEAVES) == 12
    assert value(metrics, names.LOG_LINES_DROPPED) == 1
    assert value(metrics, names.BUILD_INFO, version="1.2.3") == 1


def test_the_path_is_timed_and_its_end_counted(metrics: Metrics) -> None:
    clock = ManualClock()
    observer = Observer(metrics, clock)
    with observer.span("action", ACTION):
        assert acting.get() is ACTION
        with observer.span("decide", ACTION):
            clock.advance(0.25)
        with observer.span("perform", ACTION):
            clock.advance(2)
        cost = Cost(nanousd=5_000_000_000, usage=Usage(output_tokens=4))
        decision = Decision(effect=Effect.ALLOW)
        observer.ended(ACTION, Status.SUCCEEDED, decision, Result(status=Status.SUCCEEDED, cost=cost))
    assert acting.get() is None
    assert value(metrics, names.ACTION_DURATION + "_sum", kind="model.invoke") == 2.25
    assert value(metrics, names.STAGE_DURATION + "_sum", stage="decide") == 0.25
    assert value(metrics, names.STAGE_DURATION + "_sum", stage="perform") == 2
    assert value(metrics, names.ACTIONS, kind="model.invoke", effect="allow", status="succeeded") == 1
    assert value(metrics, names.COST, model="demo") == 5


def test_a_stage_that_nobody_named_breaks_nothing(metrics: Metrics) -> None:
    with Observer(metrics, ManualClock()).span("something new", ACTION):
        pass


def test_a_tool_call_costs_no_model_anything(metrics: Metrics) -> None:
    action = act(kind=Kind.TOOL_CALL, target="ledger__transfer")
    observer = Observer(metrics, ManualClock())
    observer.ended(action, Status.FAILED, None, Result(status=Status.FAILED, cost=Cost(nanousd=1)))
    assert value(metrics, names.ACTIONS, kind="tool.call", effect="none", status="failed") == 1
    assert value(metrics, names.COST, model="ledger__transfer") is None


@pytest.mark.parametrize(
    ("code", "effect"),
    [
        ("denied_by_policy", "deny"),
        ("unknown_tool", "deny"),
        ("approval_required", "escalate"),
        ("rate_limited", "none"),
    ],
)
def test_a_refusal_is_counted_with_its_effect(metrics: Metrics, code: str, effect: str) -> None:
    action = act(target="a name that a client made up")
    Observer(metrics, ManualClock()).refused(action, Refusal(code, "No."))
    assert value(metrics, names.ACTIONS, kind="model.invoke", effect=effect, status="denied") == 1
    assert value(metrics, names.REFUSALS, code=code) == 1
    assert b"made up" not in metrics.render()[0]
