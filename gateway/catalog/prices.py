"""Prices of models from the file that litellm's distribution carries, read as data.

litellm is never imported here: that costs seconds and 170 MB. The file is found beside the installed package,
split into rows without decoding them (about 20 ms and 4 MB, given back at once), and only the rows asked for are
read. A model that is not in it, or has no price per token there, is `priced=False`: nothing is guessed from a
name that looks alike, since the same model costs differently at different providers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from gateway.catalog.price_rows import tariff_of
from gateway.errors import Refusal
from gateway.pricing import Tariff

PRICE_FILE = "model_prices_and_context_window_backup.json"


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs."""

    priced: bool = False
    tariff: Tariff | None = None  # None: it has no price
    uplift_by_region: dict[str, Decimal] = {}  # of endpoints that keep data in a region
    max_output_tokens: int | None = None
    max_input_tokens: int | None = None


UNPRICED = Price()


def price_file() -> Path | None:
    """The packaged price file; None if litellm is not installed or has none."""
    spec = find_spec("litellm")  # for a top-level package this finds without importing
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / PRICE_FILE
    return path if path.is_file() else None


def read_prices(models: Iterable[str], path: Path | None = None) -> dict[str, Price]:
    """The price of each model named as litellm names it (`gpt-4o`, `bedrock/...`); unknown ones are unpriced.

    Raises Refusal `invalid_configuration` if there is a price file that cannot be read. Reads a file: call it
    at start and reload, off the event loop.
    """
    wanted = list(models)
    path = path or price_file()
    if not wanted or path is None:
        return dict.fromkeys(wanted, UNPRICED)
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    except (OSError, msgspec.DecodeError) as error:
        raise Refusal(
            "invalid_configuration",
            f"The price file {path.name} cannot be read ({error}); install litellm again or give each model a price.",
        ) from error
    return {model: _price(model, rows.get(model)) for model in wanted}


def _price(name: str, raw: msgspec.Raw | None) -> Price:
    if raw is None:
        return UNPRICED
    # Numbers are read as Decimal from their text, never through a float.
    row = json.loads(bytes(raw), parse_float=Decimal)
    if not isinstance(row, dict):
        return UNPRICED
    max_output_tokens = _tokens(row.get("max_output_tokens")) or _tokens(row.get("max_tokens"))
    max_input_tokens = _tokens(row.get("max_input_tokens"))
    tariff = tariff_of(name, row)
    if tariff is None:
        return Price(max_output_tokens=max_output_tokens, max_input_tokens=max_input_tokens)
    return Price(
        priced=True,
        tariff=tariff,
        uplift_by_region=_uplifts(row),
        max_output_tokens=max_output_tokens,
        max_input_tokens=max_input_tokens,
    )


def _tokens(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _uplifts(row: dict[str, Any]) -> dict[str, Decimal]:
    prefix = "regional_processing_uplift_multiplier_"
    return {
        field.removeprefix(prefix): Decimal(value)
        for field, value in row.items()
        if field.startswith(prefix) and isinstance(value, (int, Decimal))
    }
