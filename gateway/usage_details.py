"""A `usage` object read closely: one that says more than plain tokens, or whose numbers do not add up.

Providers count the same thing in different places. What is part of `prompt_tokens` or `completion_tokens` at one is
counted beside them at another (reasoning at xAI and Gemini, cache writes at Anthropic), and only `total_tokens` tells
which. Without it the higher reading counts. What nobody here knows is kept as unknown, for the dearest rate.

Sources: https://openrouter.ai/docs/use-cases/usage-accounting (cost, cache_write_tokens),
https://platform.claude.com/docs/en/api/messages (cache_creation, server_tool_use),
https://docs.x.ai/docs/guides/reasoning (reasoning beside the completion; num_sources_used, cost_in_usd_ticks),
https://docs.perplexity.ai/api-reference (num_search_queries, citation_tokens, cost),
https://api-docs.deepseek.com/guides/kv_cache (prompt_cache_hit_tokens).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from itertools import combinations
from typing import Any, NamedTuple, NoReturn

from gateway.pricing import PLAIN_TIERS, Usage, UsageDetails

MAX_COUNT = 10**9
"""A larger count in one answer is absurd."""

_MAX_USD = Decimal(100_000)
"""A higher price of one answer is absurd."""

_MAX_VALUES = 1_000  # in one object; one with more can't be believed
_NANO = Decimal(10**9)
_TICKS_PER_USD = 10**10

_INPUT_PARTS = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_PARTS = ("completion_tokens_details", "output_tokens_details")
_CACHE_READ = ("cached_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens", "num_cached_tokens")
_CACHE_WRITE = ("cache_creation_input_tokens", "cache_write_tokens", "cache_creation_tokens")
_CACHE_WRITE_PARTS = ("cache_creation", "cache_creation_token_details")
_SHORT_CACHE_WRITE = ("ephemeral_5m_input_tokens", "claude_cache_creation_5_m_tokens")
_LONG_CACHE_WRITE = ("ephemeral_1h_input_tokens", "claude_cache_creation_1_h_tokens")
_SEARCHES = ("web_search_requests", "num_search_queries", "num_sources_used")

_FREE = frozenset(
    {
        *("text_tokens", "cached_tokens_details", "accepted_prediction_tokens", "prompt_cache_miss_tokens"),
        *("web_fetch_requests", "cache_discount"),
    }
)
"""Costs nothing beside what it is part of."""

# What a number measures, by its name.
_TIME = re.compile(r"(?:^|[._])(?:time|times|timestamp|latency|duration|ttft|ms|us|rate|ratio)(?:[._]|$)|per_s(?:ec)?")
_MONEY = re.compile(r"cost|price|usd|credit|charge|fee|spend")
_CALLS = re.compile(r"search|tool|request|quer|call|image|page|second|minute|session|ground|fetch|exec|source")


def read_closely(raw: bytes, tier: str = "", cost: bytes = b"null") -> Usage | None:
    """What a `usage` object says; None where it can't be believed. `tier` and `cost` stand beside it in the answer."""
    try:
        told = json.loads(raw, parse_float=Decimal, parse_constant=_not_a_number)
        beside = json.loads(cost, parse_float=Decimal, parse_constant=_not_a_number)
        return _Reading(told, tier, beside).usage() if isinstance(told, dict) else None
    except (ValueError, RecursionError, InvalidOperation, _UnbelievableError):
        return None


class _UnbelievableError(Exception):
    """A number can't be what its name says."""


class _Part(NamedTuple):
    """A count that may be part of the input or the output, or stand beside it."""

    size: int
    side: str  # input or output
    is_inside: bool = False  # where no total tells


class _Reading:
    """One object on its way to a `Usage`: members are taken out as they are understood, what is left is unknown."""

    def __init__(self, told: dict[str, Any], tier: str, cost: Any) -> None:
        self._told = dict(told)
        self._inputs = _table(self._told, _INPUT_PARTS)
        self._outputs = _table(self._told, _OUTPUT_PARTS)
        self._tier = tier
        self._nanousd = _money(cost)
        self._is_doubtful = False
        self._is_unsure = False
        self._unknown_input = 0
        self._unknown_output = 0
        self._unknown_beside = 0
        self._calls = 0

    def usage(self) -> Usage:
        """Raises _UnbelievableError."""
        given, made = self._whole("prompt_tokens", "input_tokens"), self._whole("completion_tokens", "output_tokens")
        total = _count(self._told.pop("total_tokens", None))
        inner_read, outer_read = _most(self._inputs, _CACHE_READ), _most(self._told, _CACHE_READ)
        read = max(inner_read, outer_read)
        write, long = self._cache_writes()
        reasoning = max(_most(self._outputs, ["reasoning_tokens"]), _most(self._told, ["reasoning_tokens"]))
        rejected = _most(self._outputs, ["rejected_prediction_tokens"])
        audio_in, images = _most(self._inputs, ["audio_tokens"]), _most(self._inputs, ["image_tokens"])
        audio_out = _most(self._outputs, ["audio_tokens"])
        self._server_calls()
        self._served_tier()
        self._price()
        self._unknown(self._inputs, "input")
        self._unknown(self._outputs, "output")
        self._unknown(self._told, "")

        # OpenAI's own name for cached tokens is the one that says where they are counted.
        parts = [
            _Part(reasoning, "output"),
            _Part(rejected, "output"),
            _Part(read, "input", is_inside=inner_read == read <= given),
            _Part(write + long, "input"),
        ]
        more_given, more_made = self._beside(given + made, total, parts)
        given, made = given + more_given, made + more_made
        too_much_in = max(read, write + long, audio_in, images, self._unknown_input) > given
        if not given or too_much_in or max(reasoning + rejected, audio_out, self._unknown_output) > made:
            self._is_doubtful = True
        details = UsageDetails(
            tier=self._tier,
            cache_write_tokens=min(write, given),
            cache_write_long_tokens=min(long, given),
            image_input_tokens=min(images, given),
            audio_input_tokens=min(audio_in, given),
            audio_output_tokens=min(audio_out, made),
            unknown_input_tokens=min(self._unknown_input, given),
            unknown_output_tokens=min(self._unknown_output, made),
            server_calls=min(self._calls, MAX_COUNT),
            is_unsure=self._is_unsure,
            provider_nanousd=self._nanousd,
            is_doubtful=self._is_doubtful,
        )
        return Usage(
            input_tokens=given,
            output_tokens=made,
            cached_input_tokens=0 if self._is_doubtful else read,  # a discount that does not add up is none
            reasoning_tokens=min(reasoning, made),
            details=None if details == UsageDetails() else details,
        )

    def _beside(self, known: int, total: int | None, parts: list[_Part]) -> tuple[int, int]:
        """What is counted beside input and output, as (input, output)."""
        unknown = _Part(self._unknown_beside, "output")
        self._unknown_output += unknown.size
        if total is None:
            beside = [part for part in parts if part.size and not part.is_inside]
            self._is_unsure = self._is_unsure or bool(beside)
            return _sides([*beside, unknown])
        if total <= known:
            self._is_doubtful = self._is_doubtful or total < known
            return _sides([unknown])
        surplus = total - known
        explained = [one for one in _subsets([*parts, unknown]) if sum(part.size for part in one) == surplus]
        if len({_sides(one) for one in explained}) == 1:
            more_given, more_made = _sides(explained[0])
            return more_given, more_made + (0 if any(part is unknown for part in explained[0]) else unknown.size)
        # Nothing explains it, or two things do: output of an unknown kind.
        self._unknown_output += surplus
        return 0, surplus + unknown.size

    # ------------------------------------------------------------ what is known

    def _whole(self, name: str, alias: str) -> int:
        """Input or output. Where an answer names it twice and differently, the higher."""
        count, other = _count(self._told.pop(name, None)), _count(self._told.pop(alias, None))
        if count is None:
            raise _UnbelievableError(name)
        if other and other != count:
            self._is_doubtful = True
        return max(count, other or 0)

    def _cache_writes(self) -> tuple[int, int]:
        """(tokens written for minutes, tokens written for an hour or longer)."""
        short = long = written = 0
        for holder in (self._inputs, self._told):
            inner = _table(holder, _CACHE_WRITE_PARTS)
            short = max(short, _most(inner, _SHORT_CACHE_WRITE), _most(holder, _SHORT_CACHE_WRITE))
            long = max(long, _most(inner, _LONG_CACHE_WRITE), _most(holder, _LONG_CACHE_WRITE))
            written = max(written, _most(holder, _CACHE_WRITE))
            self._unknown(inner, "input")
        return max(short, written - long), long

    def _server_calls(self) -> None:
        tools = _table(self._told, ["server_tool_use"])
        self._calls = max(_most(holder, _SEARCHES) for holder in (self._told, tools, self._inputs))
        self._unknown(tools, "calls")

    def _served_tier(self) -> None:
        """Anthropic names it in the usage."""
        for name in ("service_tier", "speed"):
            said = self._told.pop(name, None)
            if isinstance(said, str) and said.strip().lower() not in PLAIN_TIERS and not self._tier:
                self._tier = said.strip().lower()[:64]

    def _price(self) -> None:
        """What the provider says that the call costs."""
        cost = max(self._nanousd, *(_money(self._told.pop(name, None)) for name in ("cost", "total_cost")))
        details = self._told.pop("cost_details", None)
        upstream = _money(details.get("upstream_inference_cost")) if isinstance(details, dict) else 0
        if self._told.pop("is_byok", None) is True or upstream > cost:
            cost += upstream  # OpenRouter passes the upstream's bill on, and `cost` is its own part
        ticks = _number(self._told.pop("cost_in_usd_ticks", None))
        if ticks is not None and ticks > 0:
            cost = max(cost, _to_nanousd(ticks / _TICKS_PER_USD))
        self._nanousd = max(cost, _money(self._told.pop("estimated_cost", None)))

    # ------------------------------------------------------------ what is not

    def _unknown(self, holder: dict[str, Any], side: str) -> None:
        """Take every number that is left in a holder for what its name says."""
        for path, value in _numbers(holder):
            if _TIME.search(path) or not _FREE.isdisjoint(path.split(".")):
                continue
            if _MONEY.search(path):
                self._nanousd = max(self._nanousd, _to_nanousd(value))
                self._is_unsure = True
            elif "token" in path or side in ("input", "output"):
                self._unknown_tokens(_rounded_up(value), side)
            else:
                self._is_unsure = True
                if side == "calls" or _CALLS.search(path):
                    self._calls += _rounded_up(value)

    def _unknown_tokens(self, count: int, side: str) -> None:
        if side == "input":
            self._unknown_input += count
        elif side == "output":
            self._unknown_output += count
        else:
            self._unknown_beside += count


def _table(holder: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The members of these names in one, taken out of their holder."""
    found: dict[str, Any] = {}
    for name in names:
        value = holder.pop(name, None)
        if isinstance(value, dict):
            found |= value
        elif value is not None:
            found[name] = value
    return found


def _most(holder: dict[str, Any], names: Iterable[str]) -> int:
    """The highest of the counts of these names, all taken out: they are one count under several names."""
    return max(_count(holder.pop(name, None)) or 0 for name in names)


def _count(value: Any) -> int | None:
    if value is None:
        return None
    number = _number(value)
    if number is None or not 0 <= number <= MAX_COUNT or number != int(number):
        raise _UnbelievableError(str(value)[:64])
    return int(number)


def _number(value: Any) -> Decimal | None:
    return Decimal(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else None


def _rounded_up(value: Decimal) -> int:
    return MAX_COUNT if value > MAX_COUNT else int(value.to_integral_value(rounding=ROUND_CEILING))


def _money(value: Any) -> int:
    """Nano-dollars of a price, or of a table of prices; 0 for what is none."""
    if isinstance(value, dict):
        parts = sum(_money(one) for name, one in value.items() if name != "total_cost")
        return max(_money(value.get("total_cost")), parts)
    if isinstance(value, str):
        try:
            value = Decimal(value)
        except InvalidOperation:
            return 0
    number = _number(value)
    return _to_nanousd(number) if number is not None and number.is_finite() and number > 0 else 0


def _to_nanousd(usd: Decimal) -> int:
    if usd > _MAX_USD:
        raise _UnbelievableError(str(usd)[:64])
    return int((usd * _NANO).to_integral_value(rounding=ROUND_CEILING))


def _numbers(holder: dict[str, Any]) -> Iterator[tuple[str, Decimal]]:
    """(path, number) of every positive number, however deep; a path is names in lower case with dots between."""
    todo: list[tuple[str, Any]] = [("", holder)]
    for _ in range(_MAX_VALUES):
        if not todo:
            return
        path, value = todo.pop()
        if isinstance(value, dict):
            todo += [(f"{path}.{name.lower()}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            todo += [(path, inner) for inner in value]
        elif (number := _number(value)) is not None and number > 0:
            yield path, number
    raise _UnbelievableError("too many values")


def _subsets(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    told = [part for part in parts if part.size]
    for size in range(1, len(told) + 1):
        yield from map(list, combinations(told, size))


def _sides(parts: Iterable[_Part]) -> tuple[int, int]:
    """(input, output) of some parts."""
    told = list(parts)
    return sum(part.size for part in told if part.side == "input"), sum(
        part.size for part in told if part.side == "output"
    )


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(text)
