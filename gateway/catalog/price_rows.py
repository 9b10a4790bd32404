"""A row of litellm's price file as a tariff: every rate of tokens it lists, by service tier and size of the prompt.

The names of its fields are read by their form (`input_cost_per_token_above_200k_tokens_priority`), so that a tier or a
threshold that a later file brings is not missed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import Any, TypeGuard

from gateway.pricing import Band, Rates, Tariff

_NANOUSD_PER_MTOK = Decimal(10) ** 15  # 1e9 nano-dollars a dollar, 1e6 tokens a million
_NANOUSD_PER_USD = Decimal(10) ** 9
_ARTEFACT = Decimal("0.001")  # nano-dollars per million tokens

_RATE_OF_FIELD = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_long",
    "input_cost_per_image_token": "image_input",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "output_cost_per_image_token": "other_output",
    "output_cost_per_video_token": "other_output",
    "output_cost_per_reasoning_token": "thinking_output",
}
_FIELD = re.compile(
    rf"(?P<base>{'|'.join(sorted(_RATE_OF_FIELD, key=len, reverse=True))})"
    r"(?:_above_(?P<thousands>\d+)k_tokens)?(?:_(?P<tier>[a-z]+))?"
)
_BATCHES = "batches"  # another interface, which nobody reaches through the gateway
_PER_CALL = ("search_context_cost_per_query", "google_maps_grounding_cost_per_query")
_OTHER_CHARGE = re.compile(r"(?:cost_per_(?:image|second|video|character|audio_per)|citation_cost|_per_session)")
_SEARCHING = re.compile(r"(?:^|[-/])(?:search|deep-research)(?:[-/]|$)")
"""Models that search the web for each answer, whether they are asked to or not."""
_PRIORITY_BY_PROJECT = ("openai", "azure", "azure_ai")
"""Providers whose projects can be set to a dearer tier, for requests that name none."""


def nanousd_per_mtok(usd_per_token: Decimal) -> int:
    """US dollars per token as integer nano-dollars per million tokens.

    Rounded up, but for the trace that binary floating point left in the file (3.0000000000000002e-06), which is
    taken off.
    """
    exact = usd_per_token * _NANOUSD_PER_MTOK
    nearest = exact.to_integral_value(rounding=ROUND_HALF_EVEN)
    if abs(exact - nearest) < _ARTEFACT:
        return int(nearest)
    return int(exact.to_integral_value(rounding=ROUND_CEILING))


def tariff_of(name: str, row: Mapping[str, Any]) -> Tariff | None:
    """The tariff of a row whose numbers are Decimal or int; None if it has no plain price per token."""
    table: dict[tuple[str, int], dict[str, int]] = {}
    for field, value in row.items():
        match = _FIELD.fullmatch(field)
        if match is None or match["tier"] == _BATCHES or not _is_price(value):
            continue
        rates = table.setdefault((match["tier"] or "", 1_000 * int(match["thousands"] or 0)), {})
        rate = _RATE_OF_FIELD[match["base"]]
        rates[rate] = max(rates.get(rate, 0), nanousd_per_mtok(Decimal(value)))
    _add_steps(table, row.get("tiered_pricing"))
    plain = table.pop(("", 0), {})
    if "input" not in plain or "output" not in plain:
        return None
    bands = [Band(rates=_rates(plain, plain))]
    bands += [
        Band(
            rates=_rates(rates, plain),
            tier=tier,
            above_tokens=above,
            is_assumed=not {"input", "output"} <= rates.keys(),
        )
        for (tier, above), rates in sorted(table.items())
    ]
    bands += _multiplied(bands, row.get("provider_specific_entry"))
    bands += _combined(bands)
    provider = row.get("litellm_provider")
    per_call = _per_call(row)
    searches = provider == "perplexity" or _SEARCHING.search(name) is not None
    has_priority = any(band.tier == "priority" for band in bands)
    return Tariff(
        bands=tuple(bands),
        open_tiers=("priority",) if has_priority and provider in _PRIORITY_BY_PROJECT else (),
        call_nanousd=per_call,
        request_nanousd=_nanousd(row.get("input_cost_per_request")) or 0,
        always_searches=searches and per_call is not None,
        has_other_charges=any(_is_other_charge(field, value, row) for field, value in row.items())
        or (searches and per_call is None),
    )


def scaled(tariff: Tariff, factor: Decimal) -> Tariff:
    """All rates of tokens times a factor, rounded up."""
    bands = (
        Band(
            rates=_scaled(band.rates, factor),
            tier=band.tier,
            above_tokens=band.above_tokens,
            is_assumed=band.is_assumed,
        )
        for band in tariff.bands
    )
    return Tariff(
        bands=tuple(bands),
        open_tiers=tariff.open_tiers,
        call_nanousd=tariff.call_nanousd,
        request_nanousd=tariff.request_nanousd,
        always_searches=tariff.always_searches,
        has_other_charges=tariff.has_other_charges,
    )


def with_tier(tariff_bands: tuple[Band, ...], tier: str, factor: Decimal) -> list[Band]:
    """The bands of a tier that costs a multiple of the plain one."""
    plain = [band for band in tariff_bands if not band.tier]
    return [Band(rates=_scaled(band.rates, factor), tier=tier, above_tokens=band.above_tokens) for band in plain]


def _add_steps(table: dict[tuple[str, int], dict[str, int]], steps: Any) -> None:
    """Prices that go by the size of the prompt, as a list of ranges."""
    for step in steps if isinstance(steps, list) else ():
        if not isinstance(step, dict) or not isinstance(step.get("range"), list):
            continue
        rates = table.setdefault(("", int(step["range"][0])), {})
        for field, rate in _RATE_OF_FIELD.items():
            if _is_price(value := step.get(field)):
                rates[rate] = max(rates.get(rate, 0), nanousd_per_mtok(Decimal(value)))


def _rates(rates: Mapping[str, int], plain: Mapping[str, int]) -> Rates:
    return Rates(
        **{**rates, "input": rates.get("input", plain["input"]), "output": rates.get("output", plain["output"])}
    )


def _multiplied(bands: list[Band], multipliers: Any) -> list[Band]:
    """Tiers that the file gives as multiples of the plain price."""
    if not isinstance(multipliers, dict):
        return []
    return [
        band
        for tier, factor in multipliers.items()
        if _is_price(factor)
        for band in with_tier(tuple(bands), tier, Decimal(factor))
    ]


def _combined(bands: list[Band]) -> list[Band]:
    """What long prompts cost in the tiers for which the file does not say it: as much more as in the plain one."""
    plain = bands[0].rates
    there = {(band.tier, band.above_tokens) for band in bands}
    long = [band for band in bands if not band.tier and band.above_tokens]
    found = []
    for tier in bands:
        for size in long:
            if tier.tier and not tier.above_tokens and (tier.tier, size.above_tokens) not in there:
                rates = Rates(
                    **{
                        name: _ratio(getattr(size.rates, name), getattr(tier.rates, name), getattr(plain, name))
                        for name in Rates.__struct_fields__
                    }
                )
                found.append(Band(rates=rates, tier=tier.tier, above_tokens=size.above_tokens, is_assumed=True))
    return found


def _ratio(size: int | None, tier: int | None, plain: int | None) -> Any:
    if size is None or tier is None:
        return None
    return max(size, tier) if not plain else -(-size * tier // plain)


def _scaled(rates: Rates, factor: Decimal) -> Rates:
    scaled_rates: dict[str, Any] = {
        name: None if (rate := getattr(rates, name)) is None else _ceiling(rate * factor)
        for name in Rates.__struct_fields__
    }
    return Rates(**scaled_rates)


def _per_call(row: Mapping[str, Any]) -> int | None:
    found: list[int] = []
    for field in _PER_CALL:
        value = row.get(field)
        prices = value.values() if isinstance(value, dict) else [value]
        found += [nanousd for price in prices if (nanousd := _nanousd(price)) is not None]
    return max(found, default=None)


def _is_other_charge(field: str, value: Any, row: Mapping[str, Any]) -> bool:
    if not _is_price(value) or not value or not _OTHER_CHARGE.search(field):
        return False
    shown = row.get("supported_output_modalities")
    if field.startswith("output_cost_per_image") and isinstance(shown, list):
        return "image" in shown
    return True


def _nanousd(value: Any) -> int | None:
    return _ceiling(Decimal(value) * _NANOUSD_PER_USD) if _is_price(value) else None


def _ceiling(value: Decimal) -> int:
    return int(value.to_integral_value(rounding=ROUND_CEILING))


def _is_price(value: Any) -> TypeGuard[int | Decimal]:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return False
    return Decimal(value).is_finite() and value >= 0
