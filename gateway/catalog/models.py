"""Model aliases of the configuration with their prices, as targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from gateway.actions import ModelTarget, nanousd_from_usd
from gateway.settings import Config, LitellmProvider, Model, OpenAIProvider


class PriceRow(Protocol):
    """A model's price, in integer nano-US-dollars per million tokens."""

    @property
    def priced(self) -> bool: ...
    @property
    def input_nanousd_per_mtok(self) -> int: ...
    @property
    def cached_input_nanousd_per_mtok(self) -> int | None: ...
    @property
    def output_nanousd_per_mtok(self) -> int: ...
    @property
    def max_output_tokens(self) -> int | None: ...


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
        cap_field=_cap_field(config, model),
    )
    if model.price is not None:
        cached = model.price.cached_input_usd_per_mtok
        return replace(
            target,
            input_nanousd_per_mtok=nanousd_from_usd(model.price.input_usd_per_mtok),
            cached_input_nanousd_per_mtok=None if cached is None else nanousd_from_usd(cached),
            output_nanousd_per_mtok=nanousd_from_usd(model.price.output_usd_per_mtok),
        )
    row = price(priced_name(config, model))
    if row is None or not row.priced:
        return replace(target, priced=False)
    cap = None if "max_output_tokens" in model.model_fields_set else row.max_output_tokens
    return replace(
        target,
        input_nanousd_per_mtok=row.input_nanousd_per_mtok,
        cached_input_nanousd_per_mtok=row.cached_input_nanousd_per_mtok,
        output_nanousd_per_mtok=row.output_nanousd_per_mtok,
        max_output_tokens=cap or target.max_output_tokens,
    )


def _cap_field(config: Config, model: Model) -> str | None:
    """OpenAI's own newer models take only `max_completion_tokens`; what is compatible with it knows `max_tokens`."""
    if model.cap_field != "auto":
        return None if model.cap_field == "none" else model.cap_field
    provider = config.providers.get(model.provider)
    own = isinstance(provider, OpenAIProvider) and "api.openai.com" in provider.base_url
    return "max_completion_tokens" if own else "max_tokens"
