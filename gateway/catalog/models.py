"""Model aliases of the configuration with their prices, as targets."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Protocol
from urllib.parse import urlsplit

from msgspec.structs import replace

from gateway.actions import ModelTarget, nanousd_from_usd
from gateway.catalog.price_rows import scaled, with_tier
from gateway.pricing import Band, Rates, Tariff
from gateway.settings import Config, LitellmProvider, Model, OpenAIProvider, Price


class PriceRow(Protocol):
    """What the price file knows of a model."""

    @property
    def tariff(self) -> Tariff | None: ...
    @property
    def uplift_by_region(self) -> dict[str, Decimal]: ...
    @property
    def max_output_tokens(self) -> int | None: ...
    @property
    def max_input_tokens(self) -> int | None: ...


def priced_name(config: Config, model: Model) -> str:
    """The name under which the price file knows a model: with the prefix that litellm would see."""
    provider = config.providers.get(model.provider)
    return provider.prefix + model.model if isinstance(provider, LitellmProvider) else model.model


def model_targets(config: Config, price: Callable[[str], PriceRow | None]) -> dict[str, ModelTarget]:
    """All models by alias; `price` is asked for those whose price the configuration does not give."""
    return {model.alias: _target(config, model, price) for model in config.models}


def _target(config: Config, model: Model, price: Callable[[str], PriceRow | None]) -> ModelTarget:
    target = ModelTarget(
        alias=model.alias,
        provider=model.provider,
        model=model.model,
        owner=model.owner,
        risk=model.risk,
        data_classes=model.data_classes,
        max_output_tokens=model.max_output_tokens,
        max_input_tokens=model.max_input_tokens,
        cap_field=_cap_field(config, model),
    )
    if model.price is not None:
        return _with_tariff(target, _given(model.price))
    row = price(priced_name(config, model))
    if row is None or row.tariff is None:
        return replace(target, priced=False)
    cap = None if "max_output_tokens" in model.model_fields_set else row.max_output_tokens
    target = replace(
        target,
        max_output_tokens=cap or target.max_output_tokens,
        max_input_tokens=target.max_input_tokens or row.max_input_tokens,
    )
    uplift = row.uplift_by_region.get(_region(config, model))
    return _with_tariff(target, row.tariff if uplift is None else scaled(row.tariff, uplift))


def _with_tariff(target: ModelTarget, tariff: Tariff) -> ModelTarget:
    rates = tariff.bands[0].rates
    plain = Rates(input=rates.input, cached_input=rates.cached_input, output=rates.output)
    return replace(
        target,
        input_nanousd_per_mtok=rates.input,
        cached_input_nanousd_per_mtok=rates.cached_input,
        output_nanousd_per_mtok=rates.output,
        tariff=None if tariff == Tariff(bands=(Band(rates=plain),)) else tariff,
    )


def _given(price: Price) -> Tariff:
    """The tariff that the configuration gives."""
    bands = [
        Band(
            rates=Rates(
                input=nanousd_from_usd(price.input_usd_per_mtok),
                cached_input=_rate(price.cached_input_usd_per_mtok),
                cache_write=_rate(price.cache_write_usd_per_mtok),
                cache_write_long=_rate(price.cache_write_long_usd_per_mtok),
                audio_input=_rate(price.audio_input_usd_per_mtok),
                output=nanousd_from_usd(price.output_usd_per_mtok),
                audio_output=_rate(price.audio_output_usd_per_mtok),
            )
        )
    ]
    if (long := price.long_context) is not None:
        rates = Rates(
            input=nanousd_from_usd(long.input_usd_per_mtok),
            cached_input=_rate(long.cached_input_usd_per_mtok),
            cache_write=_rate(long.cache_write_usd_per_mtok),
            output=nanousd_from_usd(long.output_usd_per_mtok),
        )
        bands.append(Band(rates=rates, above_tokens=long.above_tokens))
    plain = tuple(bands)
    for tier, factor in price.tiers.items():
        bands += with_tier(plain, tier, factor)
    return Tariff(bands=tuple(bands), open_tiers=_dearer(price), call_nanousd=_rate(price.server_tool_usd))


def _dearer(price: Price) -> tuple[str, ...]:
    """Tiers that the provider may choose for a request that names none, as far as they cost more than the plain one."""
    return tuple(tier for tier, factor in price.tiers.items() if factor > 1)


def _rate(usd: Decimal | None) -> int | None:
    return None if usd is None else nanousd_from_usd(usd)


def _region(config: Config, model: Model) -> str:
    """The region of an endpoint of OpenAI's that keeps data there, as its host begins with it."""
    provider = config.providers.get(model.provider)
    host = urlsplit(provider.base_url).hostname if isinstance(provider, OpenAIProvider) else None
    region, dot, rest = (host or "").partition(".")
    return region if dot and rest == "api.openai.com" else ""


def _cap_field(config: Config, model: Model) -> str | None:
    """OpenAI's own newer models take only `max_completion_tokens`; what is compatible with it knows `max_tokens`."""
    if model.cap_field != "auto":
        return None if model.cap_field == "none" else model.cap_field
    provider = config.providers.get(model.provider)
    own = isinstance(provider, OpenAIProvider) and "api.openai.com" in provider.base_url
    return "max_completion_tokens" if own else "max_tokens"
