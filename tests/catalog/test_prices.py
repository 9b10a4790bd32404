"""catalog/prices.py: litellm's price file is read as data, exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.catalog.price_rows import nanousd_per_mtok
from gateway.catalog.prices import Price, price_file, read_prices
from gateway.errors import Refusal
from gateway.pricing import Band, Rates, Tariff


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(text)
    return path


def tariff(tmp_path: Path, row: dict[str, object], name: str = "m") -> Tariff:
    found = read_prices([name], write(tmp_path, json.dumps({name: row})))[name].tariff
    assert found is not None
    return found


def rates(made: Tariff, tier: str = "", tokens: int = 0) -> Rates:
    band = made.band(tier, tokens)
    assert band is not None
    return band.rates


PLAIN = {"input_cost_per_token": 2e-06, "output_cost_per_token": 8e-06}


def test_a_row_becomes_integers(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '{"m": {"input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05,'
        ' "cache_read_input_token_cost": 1.25e-06, "max_output_tokens": 16384, "max_input_tokens": 128000,'
        ' "input_cost_per_token_batches": 1e-06}}',
    )
    plain = Rates(input=2_500_000_000, cached_input=1_250_000_000, output=10_000_000_000)
    assert read_prices(["m"], path)["m"] == Price(
        priced=True, tariff=Tariff(bands=(Band(rates=plain),)), max_output_tokens=16_384, max_input_tokens=128_000
    )


def test_every_kind_of_token_has_the_rate_that_the_row_lists(tmp_path: Path) -> None:
    made = tariff(
        tmp_path,
        {
            **PLAIN,
            "cache_creation_input_token_cost": 3e-06,
            "cache_creation_input_token_cost_above_1hr": 4e-06,
            "input_cost_per_audio_token": 5e-06,
            "output_cost_per_audio_token": 6e-06,
            "output_cost_per_reasoning_token": 9e-06,
            "search_context_cost_per_query": {"search_context_size_low": 0.01, "search_context_size_high": 0.02},
            "input_cost_per_request": 0.005,
        },
    )
    assert rates(made) == Rates(
        input=2_000_000_000,
        output=8_000_000_000,
        cache_write=3_000_000_000,
        cache_write_long=4_000_000_000,
        audio_input=5_000_000_000,
        audio_output=6_000_000_000,
        thinking_output=9_000_000_000,
    )
    assert (made.call_nanousd, made.request_nanousd) == (20_000_000, 5_000_000)


def test_service_tiers_and_long_prompts_have_rates_of_their_own(tmp_path: Path) -> None:
    made = tariff(
        tmp_path,
        {
            **PLAIN,
            "litellm_provider": "openai",
            "input_cost_per_token_priority": 4e-06,
            "output_cost_per_token_priority": 16e-06,
            "input_cost_per_token_flex": 1e-06,
            "output_cost_per_token_flex": 4e-06,
            "input_cost_per_token_above_200k_tokens": 6e-06,
            "output_cost_per_token_above_200k_tokens": 12e-06,
            "provider_specific_entry": {"fast": 3.0},
        },
    )
    assert rates(made, "priority").input == 4_000_000_000
    assert rates(made, "flex").output == 4_000_000_000
    assert rates(made, "fast").output == 24_000_000_000
    assert rates(made, "", 200_000).input == 2_000_000_000
    assert rates(made, "", 200_001).input == 6_000_000_000
    both = made.band("priority", 200_001)  # which the file does not list
    assert both is not None
    assert (both.rates.input, both.rates.output, both.is_assumed) == (12_000_000_000, 24_000_000_000, True)
    assert made.band("ultrafast", 0) is None
    assert made.open_tiers == ("priority",)  # an OpenAI project may be set to it


def test_prices_by_the_size_of_the_prompt_are_read_as_a_list_too(tmp_path: Path) -> None:
    steps = [
        {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "range": [0, 32000.0]},
        {"input_cost_per_token": 3e-06, "output_cost_per_token": 4e-06, "range": [32000.0, 128000.0]},
    ]
    made = tariff(tmp_path, {"tiered_pricing": steps})
    assert rates(made).input == 1_000_000_000
    assert rates(made, "", 32_001).output == 4_000_000_000


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"output_cost_per_image": 0.04}, "m"),
        ({"input_cost_per_video_per_second": 0.001}, "m"),
        ({"citation_cost_per_token": 2e-06}, "m"),
        ({}, "o3-deep-research"),
    ],
)
def test_a_row_with_charges_that_no_answer_counts_says_so(tmp_path: Path, row: dict[str, object], name: str) -> None:
    assert tariff(tmp_path, {**PLAIN, **row}, name).has_other_charges


def test_a_model_that_always_searches_is_known_by_its_price(tmp_path: Path) -> None:
    searches = {"search_context_cost_per_query": {"search_context_size_medium": 0.03}}
    assert tariff(tmp_path, {**PLAIN, **searches}, "gpt-4o-search-preview").always_searches
    assert not tariff(tmp_path, {**PLAIN, **searches}, "gpt-4o").always_searches


def test_numbers_never_pass_through_a_float(tmp_path: Path) -> None:
    # More digits than a float holds: through one, the last of them would be lost.
    path = write(tmp_path, '{"m": {"input_cost_per_token": 123456789.000000000000007, "output_cost_per_token": 0}}')
    found = read_prices(["m"], path)["m"].tariff
    assert found is not None
    assert rates(found).input == 123456789_000000000000007


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
        "rates = price.tariff.bands[0].rates\n"
        "assert price.priced and rates.output > rates.input > 0\n"
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
    bands = [band for price in priced if price.tariff is not None for band in price.tariff.bands]
    assert {"priority", "flex"} <= {band.tier for band in bands}
    assert {200_000, 272_000} <= {band.above_tokens for band in bands}
