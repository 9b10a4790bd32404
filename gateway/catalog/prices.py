"""Prices of models from the file that litellm's distribution carries, read as data.

litellm is never imported here: that costs seconds and 170 MB. The file is found beside the installed package,
split into rows without decoding them (about 20 ms and 4 MB, given back at once), and only the rows asked for are
read. A model that is not in it, or has no price per token there, is `priced=False`: nothing is guessed from a
name that looks alike, since the same model costs differently at different providers.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import TypeGuard

import msgspec

from gateway.errors import Refusal

PRICE_FILE = "model_prices_and_context_window_backup.json"
_NANOUSD_PER_MTOK = Decimal(10) ** 15  # 1e9 nano-dollars a dollar, 1e6 tokens a million
_ARTEFACT = Decimal("0.001")  # nano-dollars per million tokens


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs, in integer nano-US-dollars per million tokens."""

    priced: bool = False
    input_nanousd_per_mtok: int = 0
    cached_input_nanousd_per_mtok: int | None = None  # None: as input
    output_nanousd_per_mtok: int = 0
    max_output_tokens: int | None = None
    max_input_tokens: int | None = None
    surcharges: tuple[str, ...] = ()
    """Names of the file's dearer rates that a call may fall under (long prompts, priority, cache writes)."""


UNPRICED = Price()


class _Row(msgspec.Struct):
    """The fields of a row that are used. Numbers are read as Decimal from their text, never through a float."""

    input_cost_per_token: Decimal | None = None
    output_cost_per_token: Decimal | None = None
    cache_read_input_token_cost: Decimal | None = None
    max_output_tokens: int | None = None
    max_tokens: int | None = None
    max_input_tokens: int | None = None


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
    return {model: _price(rows.get(model)) for model in wanted}


def _price(raw: msgspec.Raw | None) -> Price:
    if raw is None:
        return UNPRICED
    try:
        row = msgspec.json.decode(raw, type=_Row)
        names = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return UNPRICED  # the file's own specimen row, or one whose numbers are words
    max_output_tokens = row.max_output_tokens or row.max_tokens
    if not _is_price(row.input_cost_per_token) or not _is_price(row.output_cost_per_token):
        return Price(max_output_tokens=max_output_tokens, max_input_tokens=row.max_input_tokens)
    cached = row.cache_read_input_token_cost
    return Price(
        priced=True,
        input_nanousd_per_mtok=nanousd_per_mtok(row.input_cost_per_token),
        cached_input_nanousd_per_mtok=nanousd_per_mtok(cached) if _is_price(cached) else None,
        output_nanousd_per_mtok=nanousd_per_mtok(row.output_cost_per_token),
        surcharges=tuple(sorted(name for name in names if _is_surcharge(name))),
        max_output_tokens=max_output_tokens,
        max_input_tokens=row.max_input_tokens,
    )


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


def _is_price(value: Decimal | None) -> TypeGuard[Decimal]:
    return value is not None and value.is_finite() and value >= 0


def _is_surcharge(name: str) -> bool:
    """Rates of text tokens above the plain ones; batch and flex are cheaper, other media are not text."""
    if "_cost" not in name or name.endswith(("_batches", "_flex")):
        return False
    return "_above_" in name or name.endswith("_priority") or name == "cache_creation_input_token_cost"
