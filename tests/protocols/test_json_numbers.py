"""Which numbers are exactly a double, and what a proposal's arguments may hold."""

from __future__ import annotations

import json
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proposals import MAX_ARGUMENT_BYTES, MAX_DEPTH, MAX_INTEGER_CHARS, read_arguments
from gateway.protocols.json_limits import MAX_FLOATS, MAX_VALUES
from gateway.protocols.json_numbers import exact_float

EXACT = [
    *("0.0", "-0.0", "1.0", "1.50", "0.1", "-0.10", "1e3", "1E+3", "1e-7", "1e22", "1e23", "100000000000000000000.0"),
    *("9007199254740992.0", "5e-324", "1.7976931348623157e308", "0.30000000000000004", "123456789012345680.0"),
]
INEXACT = [
    *("9007199254740993.0", "1e-400", "1E400", "-1e400", "1.7976931348623159e309", "4.9406564584124654e-324"),
    *("0.1000000000000000055511151231257827021181583404541015625", "0.30000000000000001", "123456789012345678.0"),
    *("1e999999999999999999999", "1e-999999999999999999999", "0." + "1" * 500, "1." + "0" * 500),
]


@pytest.mark.parametrize("text", EXACT)
def test_an_exact_number_is_read_as_it_is(text: str) -> None:
    number = exact_float(text)
    assert number is not None
    assert Decimal(text) == Decimal(repr(number))
    assert read_arguments(f'{{"x":{text}}}') == {"x": number}


@pytest.mark.parametrize("text", INEXACT)
def test_a_number_that_would_be_rounded_makes_the_arguments_unreadable(text: str) -> None:
    assert exact_float(text) is None
    assert read_arguments(f'{{"x":[1,{{"y":{text}}}]}}') is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_is_exact_as_json_writes_it(number: float) -> None:
    assert exact_float(json.dumps(number)) == number


@pytest.mark.parametrize("text", ["9007199254740993", "-9007199254740993", "18446744073709551616", "1" + "0" * 400])
def test_integers_keep_their_digits(text: str) -> None:
    read = read_arguments(f'{{"x":{text}}}')
    assert read is not None
    assert read["x"] == int(text)
    assert type(read["x"]) is int


@pytest.mark.parametrize(
    "text",
    [
        '{"x":NaN}',
        '{"x":Infinity}',
        '{"x":-Infinity}',
        '{"x":1,"x":1}',
        '{"x":{"a":1,"\\u0061":2}}',
        '{"x":[{"a":1,"a":1}]}',
        "[]",
        "null",
        "1",
        '"{}"',
        "{} {}",
        "{",
        '{"x":01}',
        '{"x":1,}',
        "{'x':1}",
        '{"x":"\n"}',
        "\ufeff{}",
        "\u00a0",
        "\u2003{}",
        '{"x":"\\ud800"}',
        '{"\\udfff":1}',
        '{"x":"\ud800"}',
        '{"x":"\\ude00\\ud83d"}',
    ],
)
def test_what_two_readers_may_read_differently_is_unreadable(text: str) -> None:
    assert read_arguments(text) is None


@pytest.mark.parametrize("text", ["", " ", "\n\t\r ", "{}", " {} "])
def test_no_arguments_are_an_empty_object(text: str) -> None:
    assert read_arguments(text) == {}


def test_a_whole_character_may_be_spelt_with_two_escapes() -> None:
    assert read_arguments('{"x":"\\ud83d\\ude00 \\\\ud800"}') == {"x": "😀 \\ud800"}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"x":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}", True),
        ('{"x":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", False),
        ('{"x":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH, True),
        ('{"x":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), False),
        ('{"x":' + "[" * 100_000 + "]" * 100_000 + "}", False),
        ('{"x":[' + "[]," * MAX_DEPTH + "[]]}", True),
        ('{"x":[' + "1," * (MAX_VALUES - 10) + "1]}", True),
        ('{"x":[' + "1," * MAX_VALUES + "1]}", False),
        ('{"x":[' + "1.5," * (MAX_FLOATS - 1) + "1.5]}", True),
        ('{"x":[' + "1.5," * MAX_FLOATS + "1.5]}", False),
        ('{"x":"' + "a" * (MAX_ARGUMENT_BYTES - 10) + '"}', True),
        ('{"x":"' + "a" * MAX_ARGUMENT_BYTES + '"}', False),
        ('{"x":"' + "é" * (MAX_ARGUMENT_BYTES // 2) + '"}', False),
        ('{"x":' + "9" * MAX_INTEGER_CHARS + "}", True),
        ('{"x":' + "9" * (MAX_INTEGER_CHARS + 1) + "}", False),
        ('{"x":-' + "9" * 5_000 + "}", False),
        ('{"x":' + "9" * 1_000_000 + "}", False),
        ('{"x":[' + ("9" * 4_000 + ",") * 200 + "1]}", True),
    ],
    ids=range(18),
)
def test_what_arguments_may_hold_is_bounded_and_read_quickly(text: str, fits: bool) -> None:
    began_s = time.process_time()
    assert (read_arguments(text) is not None) is fits
    assert time.process_time() - began_s < 0.5
