"""catalog/prices.py: litellm's price file is read as data, exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.catalog.prices import Price, nanousd_per_mtok, price_file, read_prices
from gateway.errors import Refusal


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(text)
    return path


def test_a_row_becomes_integers(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '{"m": {"input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05,'
        ' "cache_read_input_token_cost": 1.25e-06, "max_output_tokens": 16384, "max_input_tokens": 128000,'
        ' "input_cost_per_token_above_200k_tokens": 5e-06, "input_cost_per_token_batches": 1e-06}}',
    )
    assert read_prices(["m"], path)["m"] == Price(
        priced=True,
        input_nanousd_per_mtok=2_500_000_000,
        cached_input_nanousd_per_mtok=1_250_000_000,
        output_nanousd_per_mtok=10_000_000_000,
        max_output_tokens=16_384,
        max_input_tokens=128_000,
        surcharges=("input_cost_per_token_above_200k_tokens",),
    )


def test_numbers_never_pass_through_a_float(tmp_path: Path) -> None:
    # More digits than a float holds: through one, the last of them would be lost.
    path = write(tmp_path, '{"m": {"input_cost_per_token": 123456789.000000000000007, "output_cost_per_token": 0}}')
    assert read_prices(["m"], path)["m"].input_nanousd_per_mtok == 123456789_000000000000007


@pytest.mark.parametrize(
    ("usd_per_token", "nanousd"),
    [
        ("3e-06", 3_000_000_000),
        ("3.0000000000000002e-06", 3_000_000_000),
        ("2.9999999999999997e-06", 3_000_000_000),
        ("1e-15", 1),
        ("1.2e-15", 2),
        ("0", 0),
    ],
)
def test_prices_are_rounded_up_but_for_the_traces_of_floats(usd_per_token: str, nanousd: int) -> None:
    assert nanousd_per_mtok(Decimal(usd_per_token)) == nanousd


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"input_cost_per_token": 1e-6},
        {"output_cost_per_token": 1e-6},
        {"input_cost_per_token": -1e-6, "output_cost_per_token": 1e-6},
        {"input_cost_per_token": None, "output_cost_per_token": None},
        {"input_cost_per_token": "call us", "output_cost_per_token": 1e-6},
    ],
)
def test_a_row_without_both_prices_is_unpriced(tmp_path: Path, row: dict[str, object]) -> None:
    assert not read_prices(["m"], write(tmp_path, json.dumps({"m": row})))["m"].priced


def test_an_unknown_model_is_unpriced_and_no_name_alike_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, '{"azure/m": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}}')
    assert read_prices(["m", "azure/m-2"], path) == {"m": Price(), "azure/m-2": Price()}


def test_an_output_cap_is_known_even_without_a_price(tmp_path: Path) -> None:
    assert read_prices(["m"], write(tmp_path, '{"m": {"max_tokens": 9}}'))["m"] == Price(max_output_tokens=9)


def test_a_broken_price_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"prices\.json") as caught:
        read_prices(["m"], write(tmp_path, '{"m": '))
    assert caught.value.code == "invalid_configuration"


def test_the_packaged_file_is_found_and_read_without_importing_litellm() -> None:
    program = (
        "import sys\n"
        "from gateway.catalog.prices import price_file, read_prices\n"
        "price = read_prices(['gpt-4o'])['gpt-4o']\n"
        "assert price_file() is not None\n"
        "assert price.priced and price.output_nanousd_per_mtok > price.input_nanousd_per_mtok > 0\n"
        "assert price.max_output_tokens\n"
        "assert 'litellm' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_every_priced_row_of_the_packaged_file_can_be_read() -> None:
    path = price_file()
    assert path is not None
    names = list(json.loads(path.read_text()))
    priced = [price for price in read_prices(names).values() if price.priced]
    assert len(priced) > len(names) / 2
