"""The fields of a request by which an agent chooses what the provider charges.

Known fields are those of OpenAI's chat completions and of its common relatives. A field that nobody here knows passes
through (unknown fields survive), so it is searched for references to what is not in the request, and for numbers that
lift the cap on the output.

Sources: https://platform.openai.com/docs/api-reference/chat/create (service_tier, web_search_options, prediction,
modalities), https://openrouter.ai/docs/api-reference/overview (models, plugins, reasoning),
https://docs.x.ai/docs/guides/live-search (search_parameters), https://platform.claude.com/docs/en/api/messages
(thinking, speed), https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html (best_of, documents).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from unicodedata import normalize

import msgspec

from gateway.errors import Refusal
from gateway.limits.attachments import Attachments

SERVER_CALLS = 10
"""How often a provider may search the web, or run another tool of its own, for one answer. No provider promises a
number; Anthropic's `max_uses` examples have 5 (https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool)."""

_TIERS = ("service_tier", "speed")
_SEARCHES = frozenset(
    {
        *("web_search_options", "web_search", "enable_search", "enable_web_search", "search_parameters", "plugins"),
        *("search_options", "search_settings", "search", "online", "mcp_servers"),
    }
)
_OTHER_PRICES = frozenset({"models", "fallback_models", "fallbacks", "preset", "inference_geo"})
"""Lets the provider take another model, or charge a premium."""

_CAPS = frozenset(
    {"max_output_tokens", "max_new_tokens", "max_tokens_to_sample", "max_length", "n_predict", "num_predict"}
) | {"min_tokens", "min_new_tokens", "min_length"}
_TIMES = frozenset({"best_of", "candidate_count", "num_return_sequences", "num_completions", "use_beam_search"})
_THINKING = re.compile(r"^(?:thinking_?budget|budget_?tokens|reasoning_?budget|max_?thinking_?tokens)$", re.IGNORECASE)
_TEXT_FIELDS = frozenset({"prompt", "system", "suffix", "instructions", "prefix", "input_text"})
_MAX = 10**9


class Chosen(msgspec.Struct, kw_only=True):
    """What a request chooses beside its messages."""

    tier: str = ""
    server_calls: int = 0
    writes_cache: bool = False
    unpriced: str = ""  # the first field that chooses another price, none of which is known
    cap: int = 0  # on the output, in a field that is not OpenAI's
    thinking_tokens: int = 0  # beside the cap
    predicted_tokens: int = 0  # that may be rejected, and are paid for as output then
    times: int = 1
    thinks_freely: bool = False


def read_chosen(fields: Mapping[str, Any], attachments: Attachments) -> Chosen:
    """What these fields choose. Those that change nothing of the price are not among them."""
    chosen = Chosen()
    for spelled, value in fields.items():
        if value is None or value is False:
            continue
        name = normalize("NFKC", spelled).casefold()  # some providers read fields whatever their case
        if name in _TIERS:
            chosen.tier = _tier(value) or chosen.tier
        elif name in _SEARCHES:
            chosen.server_calls = SERVER_CALLS
            attachments.unknown_references += 1  # what it finds is put before the model
        elif name in _OTHER_PRICES:
            chosen.unpriced = chosen.unpriced or name
        elif name in ("prompt_cache_retention", "cache_control"):
            chosen.writes_cache = True
        elif name == "prediction":
            chosen.predicted_tokens = len(msgspec.json.encode(value))
            attachments.add_content(value.get("content") if isinstance(value, dict) else value)
        elif name in ("audio", "modalities"):
            continue  # how an answer sounds; its tokens are reserved at the dearest rate of output in any case
        elif name in _CAPS:
            chosen.cap = max(chosen.cap, _number(spelled, value))
        elif name in _TIMES:
            chosen.times *= max(1, _number(spelled, value))
        elif name == "enable_thinking":
            chosen.thinks_freely = True
        else:
            _search(spelled, value, chosen, attachments)
    return chosen


def _search(name: str, value: Any, chosen: Chosen, attachments: Attachments) -> None:
    """A field that nobody here knows."""
    _thinking(name, value, chosen)
    if name in ("input", "contents", "content"):
        attachments.add_content(value)
    if name not in _TEXT_FIELDS or not isinstance(value, str):
        attachments.search(value, name)


def _thinking(name: str, value: Any, chosen: Chosen) -> None:
    """Add up the budgets for thinking, which some providers count beside the cap."""
    todo = [(name, value)]
    while todo:
        name, value = todo.pop()
        if isinstance(value, dict):
            outer = name
            todo += [
                ("budget_tokens" if outer == "reasoning" and key == "max_tokens" else key, one)
                for key, one in value.items()
            ]
        elif isinstance(value, list):
            todo += [(name, one) for one in value]
        elif _THINKING.match(name) and isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            chosen.thinking_tokens = min(_MAX, chosen.thinking_tokens + int(min(value, _MAX)) + 1)


def _tier(value: Any) -> str:
    if not isinstance(value, str):
        raise Refusal("malformed", "The field service_tier must be a string.", detail={"param": "service_tier"})
    return value.strip().lower()[:64]


def _number(name: str, value: Any) -> int:
    if value is True:
        return 2
    if isinstance(value, (int, float)) and 0 <= value <= _MAX:
        return int(value) + (value != int(value))
    raise Refusal("malformed", f"The field {name} must be a number of tokens or answers.", detail={"param": name})
