"""Letters that look like others are found, and honest text of any language is left alone."""

from __future__ import annotations

import random
import sys

import pytest

from gateway.actions import ArgumentKind
from gateway.catalog.sentences import show
from gateway.lookalikes import code_points, differing, punycode, render_alike, suspects


def marked(text: str) -> str:
    found = suspects(text)
    return "".join(f"[{character}]" if at in found else character for at, character in enumerate(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Pay \u0430cme now", "Pay [\u0430]cme now"),  # Cyrillic a
        ("\u0391pple", "[\u0391]pple"),  # Greek capital alpha
        ("ann@\u0430cme.example", "ann@[\u0430]cme.example"),
        ("t\u0585ols", "t[\u0585]ols"),  # Armenian o
        ("p\u0301\u0430\u0301ypal", "p[\u0301][\u0430][\u0301]ypal"),  # combining marks around it
        ("pay\u00adp\u0430l", "pay\u00adp[\u0430]l"),  # a soft hyphen does not part the word
        ("\u0441\u0441\u043e\u03bf", "[\u0441][\u0441][\u043e][\u03bf]"),  # Cyrillic with Greek
        ("pay \u0430\u0440\u0440\u04cf\u0435 now", "pay [\u0430][\u0440][\u0440][\u04cf][\u0435] now"),  # all Cyrillic
        ("\u0430\u0440\u0440\u04cf\u0435.com", "[\u0430][\u0440][\u0440][\u04cf][\u0435].com"),
        ("\u0261oogle", "[\u0261]oogle"),  # Latin script g
        ("paypa\u0131@example.com", "paypa[\u0131]@example.com"),  # dotless i, in an address
        ("\uff50ay", "[\uff50]ay"),  # fullwidth p beside plain letters
        ("\U0001d5ee\U0001d5f0", "[\U0001d5ee][\U0001d5f0]"),  # mathematical bold
        ("1\u06600", "1[\u0660]0"),  # an Arabic zero among our digits
        ("\u09ea\u09ed", "[\u09ea][\u09ed]"),  # Bengali 47, which looks like 89
        ("paypal\u2024com", "paypal[\u2024]com"),  # one dot leader
        ("example.com\u2215a", "example.com[\u2215]a"),  # division slash
    ],
)
def test_what_could_be_taken_for_something_else_is_found(text: str, shown: str) -> None:
    assert marked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain text, ann@example.com",
        "Zoë Straße, naïve café, Łódź, Ægir, Trần Văn Đức, İstanbul, kapı Işık, Hawaiʻi",
        "Перевод с карты Visa на счёт в IT-компании, оса и рос",
        "Πληρωμή σε acme",
        "東京タワーABC株式会社 ＡＢＣ のiPhone",
        "한국어ABC는",
        "ใช้Googleค้นหา",
        "ה-API של הבית",
        "kΩ 5µs Δt α-helix x² H₂O 1⁄2 Nº 5 1ª",
        "office@exämple.de, почта@пример.рф",
        "emoji 👍🏽 – “quotes” … • ½",
    ],
)
def test_honest_text_is_left_alone(text: str) -> None:
    assert marked(text) == text


def test_punycode_is_read() -> None:
    assert [tuple(one) for one in punycode("ann@xn--pple-43d.com, XN--80AK6AA92E.com, xn--")] == [
        ("xn--pple-43d", "\u0430pple"),
        ("XN--80AK6AA92E", "\u0430\u0440\u0440\u04cf\u0435"),
    ]
    assert [one.reads for one in punycode("xn--99999999999999")] == [""]
    assert punycode("fn--x axn--b") == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("paypal", "\u0440\u0430ypa1"), ("rn", "m"), ("é", "e\u0301"), ("a b", "a\u00a0 b"), ("100", "1O0"), ("a\u200bb", "ab")],
)  # fmt: skip
def test_values_that_look_alike_are_told_from_others(one: str, other: str) -> None:
    assert render_alike(one, other)
    assert not render_alike(one, f"{other}x")


def test_a_difference_is_said_by_code_points() -> None:
    assert [code_points(one) for one in differing("pay acme", "pay \u0430cme")] == [
        "a U+0061 LATIN SMALL LETTER A",
        "\u0430 U+0430 CYRILLIC SMALL LETTER A",
    ]
    assert [code_points(one) for one in differing("ab", "a\u200bb")] == ["nothing", "U+200B ZERO WIDTH SPACE"]
    assert code_points("123456789").endswith(", and 1 more")


@pytest.mark.parametrize(
    "piece", ["a.", "a-", "@a", "é", "é1", "\uff41", "://", "е", "ее ", "\u0301", "xn--", "ｱa", "a.é."]
)
def test_a_longer_text_costs_in_proportion(piece: str) -> None:
    # Counts the work, not the time: an algorithm that looks back would take the square.
    def steps(times: int) -> int:
        count = 0

        def count_one(*_: object) -> None:
            nonlocal count
            count += 1

        text = f"{piece * times}é\u0430a"
        sys.setprofile(count_one)
        try:
            suspects(text)
            punycode(text)
        finally:
            sys.setprofile(None)
        return count

    steps(10)
    few, many = steps(500), steps(5000)
    assert many < 11 * few + 2000


def test_nothing_that_is_thrown_at_it_breaks_it() -> None:
    of_chance = random.Random(7)
    for _ in range(300):
        text = "".join(
            chr(of_chance.choice((of_chance.randrange(0x3000), of_chance.randrange(0x110000)))) for _ in range(30)
        )
        assert all(not text[at].isascii() for at in suspects(text))
        render_alike(text, text[::-1])
        punycode(f"xn--{text}")


HONEST_JOINERS = [
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian
    "\u0915\u094d\u200d\u092f\u093e",  # Hindi
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f 1\ufe0f\u20e3 \U0001f44d\U0001f3fd",
    "Prix\u202f: 12\u00a0\u20ac, M.\u00a0Dupont, 1\u202f000",
]


@pytest.mark.parametrize("text", HONEST_JOINERS)
def test_what_can_not_be_seen_and_belongs_to_honest_writing_is_left_alone(text: str) -> None:
    assert show(text) == f'"{text}"'
    assert show(text, ArgumentKind("email")) != f'"{text}"'


@pytest.mark.parametrize(
    "text",
    [
        "a\u200db",
        "pay\u200cacme",
        "a\ufe0fb",
        "\u00a0x",
        "x\u00a0",
        "a \u00a0b",
        "a\u00a0b",
        "\u2764\u200dx",
        "1\u20e3",
    ],
)
def test_the_same_characters_elsewhere_are_marked(text: str) -> None:
    assert "\\u{" in show(text)


@pytest.mark.parametrize("text", ["\uff30\uff21\uff39 now", "\u2160\u2161", "273 \u212a", "o\ufb03ce"])
def test_forms_of_plain_letters_are_marked_where_nobody_types_them(text: str) -> None:
    assert "\\u{" in show(text)


def test_wide_letters_beside_japanese_are_how_people_type() -> None:
    text = "\u65e5\u672c\u8a9e \uff21\uff22\uff23 \u3067\u3059"
    assert show(text) == f'"{text}"'
