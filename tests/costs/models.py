"""A model with a price for everything that can have one, and what a token of each kind costs."""

from __future__ import annotations

from typing import NamedTuple

from gateway.actions import ModelTarget
from gateway.pricing import Band, Rates, Tariff

_PLAIN = Rates(
    input=2_000_000_000,
    cached_input=1_000_000_000,
    cache_write=3_000_000_000,
    cache_write_long=5_000_000_000,
    audio_input=7_000_000_000,
    output=10_000_000_000,
    audio_output=20_000_000_000,
)
_LONG = Rates(
    input=4_000_000_000,
    cached_input=2_000_000_000,
    cache_write=6_000_000_000,
    cache_write_long=10_000_000_000,
    output=15_000_000_000,
)
LONG_ABOVE = 250


def _doubled(rates: Rates) -> Rates:
    return Rates(**{name: 2 * value for name in Rates.__struct_fields__ if (value := getattr(rates, name)) is not None})


TARIFF = Tariff(
    bands=(
        Band(rates=_PLAIN),
        Band(rates=_LONG, above_tokens=LONG_ABOVE),
        Band(rates=_doubled(_PLAIN), tier="priority"),
        Band(rates=_doubled(_LONG), tier="priority", above_tokens=LONG_ABOVE),
    ),
    open_tiers=("priority",),
    call_nanousd=10_000_000,
)
MODEL = ModelTarget(
    alias="dear",
    provider="up",
    model="dear",
    input_nanousd_per_mtok=_PLAIN.input,
    cached_input_nanousd_per_mtok=_PLAIN.cached_input,
    output_nanousd_per_mtok=_PLAIN.output,
    tariff=TARIFF,
    max_output_tokens=100,
)
PLAIN_MODEL = ModelTarget(
    alias="plain",
    provider="up",
    model="plain",
    input_nanousd_per_mtok=_PLAIN.input,
    cached_input_nanousd_per_mtok=_PLAIN.cached_input,
    output_nanousd_per_mtok=_PLAIN.output,
    max_output_tokens=100,
)
"""The same, as an operator prices it who knows of input and output only."""


class PerToken(NamedTuple):
    """Nano-dollars of one token, and of one call of a provider's tool."""

    input: int
    cached_input: int
    cache_write: int
    cache_write_long: int
    audio_input: int
    output: int
    audio_output: int
    long_input: int
    long_output: int
    dearest: int  # of the plain tier
    call: int


def rates_per_token(model: ModelTarget) -> PerToken:
    """What `MODEL` costs."""
    assert model.tariff is not None
    plain, long = model.tariff.bands[0].rates, model.tariff.bands[1].rates
    return PerToken(
        input=plain.input // 1_000_000,
        cached_input=(plain.cached_input or 0) // 1_000_000,
        cache_write=(plain.cache_write or 0) // 1_000_000,
        cache_write_long=(plain.cache_write_long or 0) // 1_000_000,
        audio_input=(plain.audio_input or 0) // 1_000_000,
        output=plain.output // 1_000_000,
        audio_output=(plain.audio_output or 0) // 1_000_000,
        long_input=long.input // 1_000_000,
        long_output=long.output // 1_000_000,
        dearest=plain.dearest // 1_000_000,
        call=model.tariff.call_nanousd or 0,
    )
