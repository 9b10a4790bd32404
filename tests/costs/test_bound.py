"""What is reserved is never below what an honest usage costs, and what has no price is never cheaper than plain."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.actions import Cost, ModelTarget, Reservation, Usage, cost_of
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, BudgetRule
from gateway.limits.bound import bound_of
from gateway.limits.levels import Accounts
from gateway.limits.memory import MemoryLimits
from gateway.outcomes import cost_of_stream
from gateway.pricing import Asked, UsageDetails, bound
from gateway.pricing import Usage as PricedUsage
from tests.costs.models import MODEL, PLAIN_MODEL, TARIFF
from tests.limits.house import act

counts = st.integers(0, 600)
OPEN = ["", "auto", "default", "priority"]


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """A usage that adds up, within the tokens of `asked`."""
    given, made = draw(counts), draw(counts)
    cached = draw(st.integers(0, given))
    write = draw(st.integers(0, given - cached))
    long = draw(st.integers(0, given - cached - write))
    audio = draw(st.integers(0, given - cached - write - long))
    return Usage(
        input_tokens=given,
        output_tokens=made,
        cached_input_tokens=cached,
        reasoning_tokens=draw(st.integers(0, made)),
        details=UsageDetails(
            tier=draw(st.sampled_from(["", "default", "priority"])),
            cache_write_tokens=write,
            cache_write_long_tokens=long,
            audio_input_tokens=audio,
            audio_output_tokens=draw(st.integers(0, made)),
            server_calls=draw(st.integers(0, 3)),
        ),
    )


@settings(deadline=None)
@given(usage=usages(), more=counts, tier=st.sampled_from(OPEN))
def test_what_is_exact_is_within_what_was_reserved(usage: Usage, more: int, tier: str) -> None:
    details = usage.details
    assert details is not None
    if tier == "default" and details.tier == "priority":
        return  # a provider that serves what was not asked for: that is reported
    audio = details.audio_input_tokens
    asked = Asked(
        input_tokens=usage.input_tokens - audio + more,
        media_tokens=audio,
        output_tokens=usage.output_tokens,
        tier=tier,
        server_calls=details.server_calls,
    )
    cost = cost_of(MODEL, usage)
    assert cost.estimated or cost.nanousd <= bound(TARIFF, asked)


unpriced = st.sampled_from(
    [
        "cache_write_tokens",
        "cache_write_long_tokens",
        "audio_input_tokens",
        "image_input_tokens",
        "unknown_input_tokens",
        "audio_output_tokens",
        "unknown_output_tokens",
    ]
)


@settings(deadline=None)
@given(given=counts, made=counts, kind=unpriced, share=st.integers(1, 600), reasoning=counts)
def test_what_has_no_price_is_estimated_and_never_below_the_plain_rates(
    given: int, made: int, kind: str, share: int, reasoning: int
) -> None:
    counts_of_kind: dict[str, Any] = {kind: min(share, given if "input" in kind or "cache" in kind else made)}
    usage = Usage(
        input_tokens=given,
        output_tokens=made,
        reasoning_tokens=min(reasoning, made),
        details=UsageDetails(**counts_of_kind),
    )
    plain = cost_of(PLAIN_MODEL, Usage(input_tokens=given, output_tokens=made))
    cost = cost_of(PLAIN_MODEL, usage)
    assert cost.nanousd >= plain.nanousd
    assert cost.estimated or usage.details == UsageDetails()


@settings(deadline=None)
@given(usage=usages(), times=st.integers(1, 4))
def test_more_of_anything_never_costs_less(usage: Usage, times: int) -> None:
    details = usage.details
    assert details is not None
    more = PricedUsage(
        input_tokens=usage.input_tokens * times,
        output_tokens=usage.output_tokens * times,
        cached_input_tokens=usage.cached_input_tokens,
        details=details,
    )
    assert cost_of(MODEL, more).nanousd >= cost_of(MODEL, usage).nanousd


# ------------------------------------------------------------ what a request chooses


def table(nanousd: int | None = 10**12) -> AllowanceTable:
    rules = (BudgetRule(window="day", nanousd=nanousd),) if nanousd else ()
    return AllowanceTable(agent_default=Allowance(budgets=rules, tokens_per_minute=10**9))


def reserve(model: ModelTarget, nanousd: int | None = 10**12, **fields: Any) -> Reservation:
    """What is reserved for a request with these fields, of an agent with or without a money budget."""
    from gateway.clock import ManualClock

    action = act(**fields)
    limits = MemoryLimits(ManualClock(1_795_348_800_000_000_000), table(nanousd))
    accounts: Accounts = limits._accounts
    made = bound_of(action, model, accounts.of(action))
    return Reservation(
        id=action.id,
        nanousd=made.nanousd,
        tokens=made.input_tokens + made.output_tokens,
        levels=(),
        max_output_tokens=made.output_tokens,
        input_tokens=made.input_tokens,
        tier=made.tier,
        server_calls=made.server_calls,
        has_unknown_price=made.has_unknown_price,
    )


def test_the_tier_that_a_request_names_or_leaves_open_is_reserved_at_its_dearest() -> None:
    default = reserve(MODEL, service_tier="default", max_tokens=100)
    for tier in ("priority", "auto"):
        assert reserve(MODEL, service_tier=tier, max_tokens=100).nanousd >= 1.9 * default.nanousd
    assert reserve(MODEL, max_tokens=100).nanousd >= 1.9 * default.nanousd  # a project may be set to priority
    assert reserve(MODEL, service_tier="flex", max_tokens=100).nanousd < 1.1 * default.nanousd


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"service_tier": "priority"}, "price.tiers"),
        ({"service_tier": "scale"}, "price.tiers"),
        ({"speed": "fast"}, "price.tiers"),
        ({"Service_Tier": "priority"}, "price.tiers"),
        ({"web_search_options": {}}, "price.server_tool_usd"),
        ({"search_parameters": {"mode": "auto"}}, "price.server_tool_usd"),
        ({"plugins": [{"id": "web"}]}, "price.server_tool_usd"),
        ({"tools": [{"type": "web_search"}]}, "price.server_tool_usd"),
        ({"models": ["gpt-5-pro"]}, "leave models out"),
    ],
)
def test_a_choice_without_a_known_price_is_refused_under_a_money_budget(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(Refusal, match="price") as refused:
        reserve(PLAIN_MODEL, **fields)
    assert refused.value.code == "budget_exhausted"
    assert names in refused.value.message
    held = reserve(PLAIN_MODEL, None, **fields)  # without one it goes through, and its cost is an estimate
    cost = cost_of_stream(PLAIN_MODEL, Usage(input_tokens=10, output_tokens=5), held)
    assert cost.estimated
    assert cost.nanousd >= cost_of(PLAIN_MODEL, Usage(input_tokens=10, output_tokens=5)).nanousd


def test_a_model_that_costs_nothing_may_be_asked_for_anything() -> None:
    free = ModelTarget(alias="local", provider="up", model="local", max_output_tokens=10)
    assert reserve(free, service_tier="priority", web_search_options={}).nanousd == 0


def test_a_tier_that_the_answer_does_not_name_is_charged_as_it_was_asked_for() -> None:
    usage = Usage(input_tokens=100, output_tokens=10)
    plain = cost_of(MODEL, usage).nanousd
    asked = cost_of_stream(MODEL, usage, reserve(MODEL, service_tier="priority", max_tokens=100))
    assert (asked.nanousd, asked.estimated) == (2 * plain, True)
    cheap = cost_of_stream(MODEL, usage, reserve(MODEL, service_tier="flex", max_tokens=100))
    assert (cheap.nanousd, cheap.estimated) == (plain, True)
    named = Usage(input_tokens=100, output_tokens=10, details=UsageDetails(tier="priority"))
    exact = cost_of_stream(MODEL, named, reserve(MODEL, service_tier="priority", max_tokens=100))
    assert (exact.nanousd, exact.estimated) == (2 * plain, False)
    open_ = cost_of_stream(MODEL, usage, reserve(MODEL, max_tokens=100))
    assert (open_.nanousd, open_.estimated) == (plain, False)


def test_searches_that_the_answer_does_not_count_are_charged_as_they_were_reserved() -> None:
    usage = Usage(input_tokens=100, output_tokens=10)
    held = reserve(MODEL, web_search_options={}, max_tokens=100)
    cost = cost_of_stream(MODEL, usage, held)
    assert cost.estimated
    assert cost.nanousd == cost_of(MODEL, usage).nanousd + held.server_calls * 10_000_000 <= held.nanousd
    counted = Usage(input_tokens=100, output_tokens=10, details=UsageDetails(server_calls=2))
    exact = cost_of_stream(MODEL, counted, held)
    assert (exact.nanousd, exact.estimated) == (cost_of(MODEL, usage).nanousd + 20_000_000, False)


def test_a_doubtful_usage_costs_no_less_than_what_was_reserved() -> None:
    held = reserve(MODEL, max_tokens=100)
    doubtful = Usage(input_tokens=10, output_tokens=1, details=UsageDetails(is_doubtful=True))
    cost = cost_of_stream(MODEL, doubtful, held)
    assert (cost.nanousd, cost.estimated, cost.usage.estimated) == (held.nanousd, True, True)
    high = Usage(input_tokens=10**6, output_tokens=10**6, details=UsageDetails(is_doubtful=True))
    assert cost_of_stream(MODEL, high, held).nanousd > held.nanousd


def test_a_model_without_a_price_never_has_an_exact_cost() -> None:
    model = ModelTarget(alias="m", provider="up", model="m", priced=False)
    cost = cost_of(model, Usage(input_tokens=10, output_tokens=5))
    assert cost == Cost(nanousd=0, usage=Usage(input_tokens=10, output_tokens=5), estimated=True, is_counted=True)


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"prediction": {"type": "content", "content": "x" * 500}}, 500),
        ({"thinking": {"type": "enabled", "budget_tokens": 700}}, 700),
        ({"thinking_budget": 700}, 700),
        ({"reasoning": {"max_tokens": 700}}, 700),
        ({"extra_body": {"google": {"thinking_config": {"thinking_budget": 700}}}}, 700),
        ({"max_output_tokens": 900}, 800),
        ({"max_new_tokens": 900}, 800),
        ({"min_tokens": 900}, 800),
        ({"best_of": 3}, 200),
        ({"enable_thinking": True}, 100),
    ],
)
def test_what_lifts_the_cap_on_the_output_is_reserved(fields: dict[str, Any], more: int) -> None:
    plain = reserve(MODEL, max_tokens=100).max_output_tokens
    assert reserve(MODEL, max_tokens=100, **fields).max_output_tokens >= plain + more


@pytest.mark.parametrize("fields", [{"service_tier": 5}, {"best_of": "many"}, {"max_new_tokens": -1}])
def test_a_choice_that_can_not_be_read_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        reserve(MODEL, **fields)
    assert refused.value.code == "malformed"


def test_a_prompt_cache_is_reserved_at_the_dearest_where_its_price_is_not_known() -> None:
    content = [{"type": "text", "text": "x" * 2_000, "cache_control": {"type": "ephemeral"}}]
    plain = [{"type": "text", "text": "x" * 2_000, "cache_contrxl": {"type": "ephemeral"}}]
    assert reserve(PLAIN_MODEL, content=content).nanousd > 3 * reserve(PLAIN_MODEL, content=plain).nanousd
    assert reserve(MODEL, content=content).nanousd == reserve(MODEL, content=plain).nanousd


@settings(deadline=None)
@given(given=counts, made=counts)
def test_the_quick_bound_of_a_plain_request_is_the_bound(given: int, made: int) -> None:
    asked = Asked(input_tokens=given, output_tokens=made)
    assert TARIFF.bound(given, made) == bound(TARIFF, asked)
