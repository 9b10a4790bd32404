"""What people read before they decide: true to the arguments, and not to be bent by them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.actions import ArgumentKind, ToolTarget
from gateway.catalog import render_sentence
from gateway.catalog.sentences import show
from gateway.lookalikes import joined

CENTS = ArgumentKind("money", "USD", "cents")
PAYEE = ArgumentKind("payee")
TEXT = ArgumentKind("text")


def transfer(**arguments: Any) -> str:
    target = ToolTarget(
        server="bank",
        tool="transfer",
        server_kind="mcp",
        owner="o",
        risk="high",
        effect="write",
        sentence="Transfer {amount_cents:money} to {to}",
        arguments={"amount_cents": CENTS, "to": PAYEE},
    )
    return render_sentence(target, arguments)


def test_a_plain_call_reads_as_its_owner_wrote_it() -> None:
    assert transfer(amount_cents=2500, to="acme-gmbh") == "Transfer 25.00 USD to acme-gmbh"


def test_a_tool_without_a_sentence_says_what_is_called() -> None:
    target = ToolTarget(server="bank", tool="x", server_kind="mcp", owner="o", risk="low", effect="read")
    assert render_sentence(target, {"a": 1}) == "Call x of bank"


def test_what_was_not_given_is_told() -> None:
    assert transfer(amount_cents=1) == "Transfer 0.01 USD to (not given)"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0.00 USD"),
        (-5, "-0.05 USD"),
        (10**15, "10000000000000.00 USD"),
        (True, "true (not a whole number of cents)"),
        ("2500", "2500 (not a whole number of cents)"),
        (25.0, "25.0 (not a whole number of cents)"),
        (None, "null (not a whole number of cents)"),
        (10**40 + 1, "1" + "0" * 38 + ".01 USD"),
    ],
)
def test_money_is_shown_exactly_or_not_as_money(value: Any, shown: str) -> None:
    assert show(value, CENTS) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (12.5, "12.50 EUR"),
        (0.1 + 0.2, "0.30000000000000004 EUR (not a whole number of cents)"),
        (-0.05, "-0.05 EUR"),
        (1e22, "1e+22 EUR (not a whole number of cents)"),
        (float("inf"), "Infinity EUR (not a whole number of cents)"),
        (float("nan"), "NaN EUR (not a whole number of cents)"),
    ],
)
def test_money_in_units_may_have_cents(value: float, shown: str) -> None:
    assert show(value, ArgumentKind("money", "EUR", "units")) == shown


def test_money_in_whole_units_has_no_cents() -> None:
    assert show(25, ArgumentKind("money", "JPY", "units")) == "25 JPY"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("acme gmbh", '"acme gmbh"'),
        ("acme-gmbh and 1 USD to mallory", '"acme-gmbh and 1 USD to mallory"'),
        ('a" to "b', '"a\\" to \\"b"'),
        ("a\nb\tc\\", '"a\\nb\\tc\\\\"'),
        ("a\x1b[31m", '"a\\u{1b}[31m"'),
        ("\u202egnp.exe", '"\\u{202e}gnp.exe"'),
        ("a\u200bb", '"a\\u{200b}b"'),
        ("\u0430cme", '"\\u{430}cme"'),
        ("a\u00a0b", '"a\\u{a0}b"'),
        ("a\u3164b", '"a\\u{3164}b"'),
        ("a\ufe0fb", '"a\\u{fe0f}b"'),
        ("\U000e0041", '"\\u{e0041}"'),
        ("\ud800", '"\\u{d800}"'),
        ("", '""'),
        ({"a": [1, "x"]}, '"{\\"a\\":[1,\\"x\\"]}"'),
        ([1, 2], '"[1,2]"'),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
    ],
)
def test_hostile_values_are_quoted_and_their_tricks_made_visible(value: Any, shown: str) -> None:
    assert show(value, PAYEE) == shown


def test_free_text_keeps_its_letters() -> None:
    assert show("Grüße, 東京", TEXT) == '"Grüße, 東京"'


def test_piled_up_marks_are_escaped() -> None:
    assert "\\u{301}" in show("a" + "\u0301" * 30, TEXT)


def test_a_long_value_is_cut_visibly() -> None:
    shown = show("x" * 5000, TEXT)
    assert len(shown) < 300
    assert shown.endswith("(+4800 characters)")


def test_a_number_with_ten_thousand_digits_is_no_crash() -> None:
    assert show(10**10_000) == "(a number too large to show)"
    assert show(10**10_000, CENTS) == "(a number too large to show)"
    assert len(show(10**1_000)) < 300


@given(st.text(max_size=400), st.sampled_from([PAYEE, TEXT, None]))
def test_whatever_the_text_the_sentence_is_one_line_of_visible_characters(text: str, kind: ArgumentKind | None) -> None:
    shown = show(text, kind)
    belongs_there = joined(shown)
    seen = "".join(one for at, one in enumerate(shown) if at not in belongs_there)
    assert seen.replace(" ", "").isprintable() or seen == ""
    assert "\n" not in shown
    if shown != text:
        inside = shown[1 : shown.rindex('"')]
        assert '"' not in inside.replace("\\\\", "").replace('\\"', "")
