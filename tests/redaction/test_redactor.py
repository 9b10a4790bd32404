"""Secrets are taken out of text: whole, in JSON, and in pieces, wherever it is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.redaction import REDACTED, HeldText, Redactor

SECRET = "sk-live-0123456789"


def in_pieces(redactor: Redactor, pieces: list[str]) -> str:
    text = HeldText(redactor)
    return "".join([*map(text.feed, pieces), text.end()])


# Few letters, so that secrets overlap, contain and continue one another.
words = st.text("ab", min_size=1, max_size=6)


@given(st.lists(words, min_size=1, max_size=4), st.lists(st.text("abc", max_size=5), max_size=12))
def test_any_split_of_any_text_gives_the_same_as_all_of_it(secrets: list[str], pieces: list[str]) -> None:
    redactor = Redactor(secrets)
    assert in_pieces(redactor, pieces) == redactor.redact("".join(pieces))


@given(st.lists(words, min_size=1, max_size=4), st.lists(st.text("abc", max_size=5), max_size=12))
def test_only_the_beginning_of_a_secret_is_held(secrets: list[str], pieces: list[str]) -> None:
    text = HeldText(Redactor(secrets))
    for piece in pieces:
        text.feed(piece)
        assert not text.held or any(one.startswith(text.held) and one != text.held for one in secrets)


def test_what_only_begins_like_a_secret_comes_in_full_with_the_next_piece() -> None:
    text = HeldText(Redactor([SECRET]))
    assert [text.feed(piece) for piece in ("my sk-li", "ne", " is s", "")] == ["my ", "sk-line", " is ", ""]
    assert text.end() == "s"


def spelled(text: str, depth: int) -> str:
    """`text` in JSON escapes, in a string in a string ..."""
    for _ in range(depth):
        text = "".join(f"\\u{ord(char):04X}" if number % 2 else char for number, char in enumerate(text))
        text = text.replace("\\", "\\\\")
    return text


@pytest.mark.parametrize("secret", [SECRET, 'p"a\\ss/wörd\n&1', "geheim-\N{KEY}-geheim"])
@pytest.mark.parametrize(
    "write",
    [
        json.dumps,
        lambda value: json.dumps(value, ensure_ascii=False),
        lambda value: json.dumps(value).replace("/", "\\/"),
    ],
)
def test_no_spelling_of_json_hides_a_secret(secret: str, write: Any) -> None:
    redactor = Redactor([secret])
    values = [secret, f"x{secret}y", {secret: 1}, {"a": [{"b": {"c": secret}}]}]
    for value in values:
        clean = json.loads(redactor.redact_json(write(value).encode()))
        assert secret not in json.dumps(clean, ensure_ascii=False)
        assert clean == redactor.redact_value(value)
        inner = json.loads(redactor.redact_json(write({"arguments": write(value)}).encode()))["arguments"]
        assert json.loads(inner) == redactor.redact_value(value)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_escapes_of_single_letters_do_not_hide_a_secret(depth: int) -> None:
    raw = b'{"text": "a %s b"}' % spelled(SECRET, depth).replace("\\\\u", "\\u", 1 if depth == 1 else 0).encode()
    text = json.loads(Redactor([SECRET]).redact_json(raw))["text"]
    assert REDACTED in text


def test_json_without_a_secret_is_the_same_object_and_other_bytes_of_it_stay() -> None:
    redactor = Redactor([SECRET, "1234567890"])
    harmless = b'{"n": 1e400, "n": 12345678901234567890, "t": "\\u0041\\/"}'
    assert redactor.redact_json(harmless) is harmless
    told = b'{"n": 1.50, "n":  -0, "k": "' + SECRET.encode() + b'", "id": 1234567890, "t": "\\u0041"}'
    assert redactor.redact_json(told) == b'{"n": 1.50, "n":  -0, "k": "[redacted]", "id": "[redacted]", "t": "\\u0041"}'


def test_the_longest_of_several_secrets_counts() -> None:
    assert Redactor(["abcdefgh", "abcdefghij"]).redact("abcdefghijk abcdefghk") == "[redacted]k [redacted]k"
