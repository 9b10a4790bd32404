"""usage.py, usage_details.py: what providers say of their usage, in the many ways they say it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.actions import Usage, cost_of
from gateway.pricing import UsageDetails
from gateway.usage import StreamUsage, usage_of_answer
from tests.costs.models import MODEL, rates_per_token

RATES = rates_per_token(MODEL)


def answer(usage: object, **more: Any) -> bytes:
    choices = [{"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}]
    return json.dumps({"choices": choices, "usage": usage, **more}).encode()


def told(given: int, made: int, total: int | None = None, **more: Any) -> dict[str, Any]:
    total = given + made if total is None else total
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": total, **more}


def read(usage: object, **more: Any) -> Usage:
    found = usage_of_answer(answer(usage, **more))
    assert found is not None
    return found


# ------------------------------------------------------------ exact: the provider counted it, and it has a price

EXACT = [
    pytest.param(told(100, 10), 100 * RATES.input + 10 * RATES.output, id="plain"),
    pytest.param(
        told(100, 10, prompt_tokens_details={"cached_tokens": 40}),
        60 * RATES.input + 40 * RATES.cached_input + 10 * RATES.output,
        id="cached",
    ),
    pytest.param(
        told(100, 10, 140, completion_tokens_details={"reasoning_tokens": 30}),
        100 * RATES.input + 40 * RATES.output,
        id="reasoning beside the completion (xAI)",
    ),
    pytest.param(
        told(100, 40, completion_tokens_details={"reasoning_tokens": 30, "rejected_prediction_tokens": 5}),
        100 * RATES.input + 40 * RATES.output,
        id="reasoning inside the completion (OpenAI)",
    ),
    pytest.param(
        told(100, 10, prompt_tokens_details={"audio_tokens": 60}),
        40 * RATES.input + 60 * RATES.audio_input + 10 * RATES.output,
        id="audio in",
    ),
    pytest.param(
        told(100, 10, completion_tokens_details={"audio_tokens": 8, "text_tokens": 2}),
        100 * RATES.input + 2 * RATES.output + 8 * RATES.audio_output,
        id="audio out",
    ),
    pytest.param(
        told(100, 10, prompt_tokens_details={"cached_tokens": 0, "cache_write_tokens": 70}),
        30 * RATES.input + 70 * RATES.cache_write + 10 * RATES.output,
        id="cache writes inside the prompt (OpenRouter)",
    ),
    pytest.param(
        told(100, 10, 180, cache_creation_input_tokens=70),
        100 * RATES.input + 70 * RATES.cache_write + 10 * RATES.output,
        id="cache writes beside the prompt (Anthropic)",
    ),
    pytest.param(
        told(100, 10, cache_creation_input_tokens=70, cache_creation={"ephemeral_1h_input_tokens": 70}),
        30 * RATES.input + 70 * RATES.cache_write_long + 10 * RATES.output,
        id="long cache writes",
    ),
    pytest.param(
        told(
            100,
            10,
            prompt_tokens_details={"cached_tokens": 20, "cache_creation_tokens": 70, "text_tokens": 100},
            cache_creation_input_tokens=70,
            cache_read_input_tokens=20,
        ),
        10 * RATES.input + 20 * RATES.cached_input + 70 * RATES.cache_write + 10 * RATES.output,
        id="one count under two names (litellm)",
    ),
    pytest.param(
        told(100, 10, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36),
        36 * RATES.input + 64 * RATES.cached_input + 10 * RATES.output,
        id="cache hits and misses (DeepSeek)",
    ),
    pytest.param(
        told(100, 10, server_tool_use={"web_search_requests": 3, "web_fetch_requests": 2}),
        100 * RATES.input + 10 * RATES.output + 3 * RATES.call,
        id="searches of the provider (Anthropic)",
    ),
    pytest.param(
        told(100, 10, num_search_queries=2, search_context_size="low"),
        100 * RATES.input + 10 * RATES.output + 2 * RATES.call,
        id="searches of the provider (Perplexity)",
    ),
    pytest.param(
        told(300, 10), 300 * RATES.long_input + 10 * RATES.long_output, id="a prompt above the size of a dearer rate"
    ),
    pytest.param(
        told(100, 10, queue_time=0.03, total_time=1.5, latency_checkpoint={"engine_ttft_ms": 12}),
        100 * RATES.input + 10 * RATES.output,
        id="times (Groq, Azure)",
    ),
    pytest.param(
        told(100, 10, service_tier="priority"),
        2 * (100 * RATES.input + 10 * RATES.output),
        id="the tier inside the usage (Anthropic)",
    ),
    pytest.param(told(100, 10, cost=0.00000001), 100 * RATES.input + 10 * RATES.output, id="a cost below ours"),
]


@pytest.mark.parametrize(("usage", "nanousd"), EXACT)
def test_what_was_counted_and_has_a_price_is_exact(usage: dict[str, Any], nanousd: int) -> None:
    cost = cost_of(MODEL, read(usage))
    assert (cost.nanousd, cost.estimated) == (nanousd, False)


def test_the_tier_that_an_answer_names_is_the_one_that_is_paid() -> None:
    plain = cost_of(MODEL, read(told(100, 10), service_tier="default"))
    dear = cost_of(MODEL, read(told(100, 10), service_tier="priority"))
    cheap = cost_of(MODEL, read(told(100, 10), service_tier="flex"))
    assert (plain.nanousd, plain.estimated) == (100 * RATES.input + 10 * RATES.output, False)
    assert (dear.nanousd, dear.estimated) == (2 * plain.nanousd, False)
    assert (cheap.nanousd, cheap.estimated) == (plain.nanousd, True)  # cheaper, by what nobody here knows


# ------------------------------------------------------------ estimated: never below the plain price

PLAIN = 100 * RATES.input + 10 * RATES.output

ESTIMATED = [
    pytest.param(told(100, 10, 400), PLAIN + 290 * RATES.dearest, id="a total that nothing explains (Gemini)"),
    pytest.param(told(100, 10, 400, reasoning_tokens=7), PLAIN + 290 * RATES.dearest, id="explained in part"),
    pytest.param(told(100, 10, citation_tokens=50), PLAIN + 50 * RATES.dearest, id="tokens beside all others"),
    pytest.param(
        told(100, 10, 160, citation_tokens=50), PLAIN + 50 * RATES.dearest, id="tokens beside all others, in the total"
    ),
    pytest.param(
        told(100, 10, prompt_tokens_details={"video_tokens": 90}),
        10 * RATES.input + 90 * RATES.dearest + 10 * RATES.output,
        id="an unknown part of the prompt",
    ),
    pytest.param(
        told(100, 10, completion_tokens_details={"image_tokens": 10}),
        100 * RATES.input + 10 * RATES.dearest,
        id="an unknown part of the answer",
    ),
    pytest.param(
        told(100, 10, output_tokens_details=[{"modality": "IMAGE", "token_count": 10}]),
        100 * RATES.input + 10 * RATES.dearest,
        id="a list of parts",
    ),
    pytest.param(told(100, 10, cost=0.5), 500_000_000, id="a cost above ours (OpenRouter)"),
    pytest.param(
        told(100, 10, cost=0.5, cost_details={"upstream_inference_cost": 4.5}), 5_000_000_000, id="an upstream's bill"
    ),
    pytest.param(
        told(100, 10, cost={"input_tokens_cost": 0.1, "request_cost": 0.2, "total_cost": 0.3}),
        300_000_000,
        id="a table of costs (Perplexity)",
    ),
    pytest.param(told(100, 10, cost_in_usd_ticks=5_000_000_000), 500_000_000, id="ticks (xAI)"),
    pytest.param(told(100, 10, estimated_cost=0.5), 500_000_000, id="an estimated cost (DeepInfra)"),
    pytest.param(told(100, 10, tool_fees_usd=0.5), 500_000_000, id="money of unknown name"),
    pytest.param(told(100, 10, pages_fetched=3), PLAIN + 3 * RATES.call, id="calls of unknown name"),
    pytest.param(told(100, 10, server_tool_use={"x": 2}), PLAIN + 2 * RATES.call, id="an unknown tool"),
    pytest.param(told(100, 10, widgets=3), PLAIN, id="something unknown"),
    pytest.param(told(100, 10, service_tier="ultra"), 2 * PLAIN, id="an unknown tier"),
    pytest.param(
        {"prompt_tokens": 100, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 9}},
        100 * RATES.input + 19 * RATES.output,
        id="reasoning where no total tells where it is counted",
    ),
    pytest.param(
        {"prompt_tokens": 100, "completion_tokens": 10, "cache_creation_input_tokens": 50},
        PLAIN + 50 * RATES.cache_write,
        id="cache writes where no total tells where they are counted",
    ),
    pytest.param(told(100, 10, 90), PLAIN, id="a total below its parts"),
    pytest.param(told(100, 10, prompt_tokens_details={"cached_tokens": 500}), PLAIN, id="more cached than there were"),
    pytest.param(told(100, 10, completion_tokens_details={"reasoning_tokens": 50}), PLAIN, id="more thought than made"),
    pytest.param(told(100, 10, input_tokens=120), 120 * RATES.input + 10 * RATES.output, id="two names that differ"),
    pytest.param(told(0, 10), 10 * RATES.output, id="a prompt of nothing"),
]


@pytest.mark.parametrize(("usage", "at_least"), ESTIMATED)
def test_what_has_no_price_is_estimated_at_the_dearest_rate(usage: dict[str, Any], at_least: int) -> None:
    cost = cost_of(MODEL, read(usage))
    assert cost.estimated
    assert cost.nanousd >= at_least


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param(told(-1, 10), id="negative"),
        pytest.param(told(10**10, 10), id="absurd"),
        pytest.param({"prompt_tokens": True, "completion_tokens": 1}, id="boolean"),
        pytest.param({"prompt_tokens": 10.5, "completion_tokens": 1}, id="half a token"),
        pytest.param({"prompt_tokens": "10", "completion_tokens": 1}, id="text"),
        pytest.param({"prompt_tokens": 10}, id="half of it"),
        pytest.param(told(10, 5, completion_tokens_details={"reasoning_tokens": -3}), id="a negative detail"),
        pytest.param(told(10, 5, prompt_tokens_details={"cached_tokens": True}), id="a boolean detail"),
        pytest.param(told(10, 5, cost=10**9), id="a price of a billion"),
        pytest.param(told(10, 5, total=10**12), id="an absurd total"),
        pytest.param([10, 5], id="a list"),
        pytest.param(None, id="null"),
    ],
)
def test_what_can_not_be_is_not_believed(usage: object) -> None:
    assert usage_of_answer(answer(usage)) is None


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert usage_of_answer(b'{"usage":{"prompt_tokens":10.0,"completion_tokens":5.0}}') == Usage(
        input_tokens=10, output_tokens=5
    )


@pytest.mark.parametrize("depth", [100, 100_000])
def test_a_deep_usage_is_not_followed_for_ever(depth: int) -> None:
    raw = b'{"prompt_tokens":1,"completion_tokens":1,"x":' + b"[" * depth + b"]" * depth + b"}"
    try:
        found = usage_of_answer(b'{"usage":' + raw + b"}")
    except RecursionError:
        return  # the whole answer is refused by who asked
    assert found is None or found.input_tokens == 1


def test_an_answer_that_says_something_did_not_cost_nothing() -> None:
    found = read(told(100, 0))
    assert found.details == UsageDetails(is_doubtful=True)
    empty = {"choices": [{"message": {"role": "assistant", "content": ""}}], "usage": told(100, 0)}
    assert usage_of_answer(json.dumps(empty).encode()) == Usage(input_tokens=100)


# ------------------------------------------------------------ streams


def chunk(text: str | None, usage: object = None, **more: Any) -> dict[str, Any]:
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    return {"choices": choices, "usage": usage, **more}


def stream(*chunks: dict[str, Any]) -> Usage | None:
    reading = StreamUsage()
    for one in chunks:
        if one["usage"] is not None or reading.is_waiting:
            reading.add(json.dumps(one).encode(), msgspec.Raw(json.dumps(one["usage"]).encode()))
    return reading.total()


def test_the_last_word_of_a_stream_counts() -> None:
    exact = Usage(input_tokens=10, output_tokens=5)
    assert stream(chunk("a"), chunk("b"), chunk(None, told(10, 5))) == exact
    growing = (chunk("a", told(10, 1)), chunk("b", told(10, 3)), chunk("", told(10, 5)), chunk(None, told(10, 5)))
    assert stream(*growing) == exact
    assert stream(chunk("a", told(10, 5)), chunk("")) == exact  # nothing more was said


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param((chunk("a"), chunk(None, told(10, 1)), chunk("b")), id="the answer went on"),
        pytest.param((chunk("a", told(10, 50)), chunk(None, told(10, 5))), id="output that shrinks"),
        pytest.param((chunk("a", told(100, 0)), chunk(None, {"prompt_tokens": 1, "completion_tokens": 5})), id="parts"),
        pytest.param((chunk("a", told(10, 5, cost=0.5)), chunk(None, told(10, 5))), id="a cost that goes"),
        pytest.param((chunk("a", told(10, 5)), chunk(None, {"prompt_tokens": -1})), id="nonsense at the end"),
        pytest.param((chunk("a"), chunk("b"), chunk(None, told(10, 0))), id="an answer of nothing"),
    ],
)
def test_a_stream_that_contradicts_itself_is_doubted(chunks: tuple[dict[str, Any], ...]) -> None:
    found = stream(*chunks)
    assert found is not None
    assert found.details is not None
    assert found.details.is_doubtful
    assert found.input_tokens >= 10


def test_a_stream_names_its_tier_in_any_of_its_first_events() -> None:
    for chunks in (
        (chunk("a", service_tier="priority"), chunk(None, told(10, 5))),
        (chunk("a"), chunk(None, told(10, 5), service_tier="priority")),
    ):
        found = stream(*chunks)
        assert found is not None
        assert found.details == UsageDetails(tier="priority")


def test_a_stream_without_usage_has_none() -> None:
    assert stream(chunk("a"), chunk("b")) is None
    assert stream(chunk("a"), chunk(None, {"prompt_tokens": "x"})) is None


def test_a_tier_that_an_answer_leaves_open_is_the_dearest_that_it_can_be() -> None:
    cost = cost_of(MODEL, read(told(100, 10), service_tier="auto"))
    assert (cost.nanousd, cost.estimated) == (2 * PLAIN, True)


def test_searches_among_the_details_of_the_prompt_are_calls() -> None:
    usage = told(100, 10, prompt_tokens_details={"cached_tokens": 0, "web_search_requests": 2})
    cost = cost_of(MODEL, read(usage))
    assert (cost.nanousd, cost.estimated) == (PLAIN + 2 * RATES.call, False)


# ------------------------------------------------------------ whatever a provider says

numbers = st.one_of(
    st.integers(0, 500), st.sampled_from([None, True, -1, 1.5, "5", 10**12, {}, [], [3], {"tokens": 3}, 0.25])
)
KNOWN = [
    *("cached_tokens", "audio_tokens", "image_tokens", "text_tokens", "reasoning_tokens", "cache_write_tokens"),
    *("rejected_prediction_tokens", "accepted_prediction_tokens", "cache_creation_input_tokens", "num_search_queries"),
    *("cache_read_input_tokens", "server_tool_use", "cost", "cost_details", "service_tier", "input_tokens"),
]
UNKNOWN = ["new_tokens", "widgets", "fetches", "extra_cost", "deep"]
details = st.dictionaries(st.sampled_from([*KNOWN, *UNKNOWN]), numbers, max_size=4)


@settings(deadline=None, max_examples=500)
@given(
    given=st.integers(0, 500),
    made=st.integers(0, 500),
    total=st.one_of(st.none(), st.integers(0, 2_000)),
    inputs=details,
    outputs=details,
    more=details,
)
def test_whatever_is_said_is_none_or_at_least_what_was_counted(
    given: int, made: int, total: int | None, inputs: dict[str, Any], outputs: dict[str, Any], more: dict[str, Any]
) -> None:
    usage = {
        **more,
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": total,
        "prompt_tokens_details": inputs,
        "completion_tokens_details": outputs,
    }
    found = usage_of_answer(answer(usage))
    if found is None:
        return
    cost = cost_of(MODEL, found)
    doubtful = found.details is not None and found.details.is_doubtful
    assert found.input_tokens >= given
    assert found.output_tokens >= made
    assert doubtful or found.input_tokens + found.output_tokens >= (total or 0)
    assert cost.nanousd >= min(RATES.input, RATES.cached_input) * given + RATES.output * made
    said = {**inputs, **outputs, **more}
    if any(type(said.get(name)) is int and said[name] > 0 for name in UNKNOWN):
        assert cost.estimated
    if not cost.estimated:
        assert cost.nanousd >= RATES.input * (given - found.cached_input_tokens) + RATES.output * made
