"""The upper bound of a model call's tokens is never below what a provider could count."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Refusal
from gateway.limits import input_bound, output_bound
from gateway.limits.bounds import bound_nanousd
from gateway.limits.inline_data import FILE_TOKENS, PICTURE_TOKENS
from tests.limits.house import MODEL, act


@pytest.fixture(scope="module")
def worst_encoding() -> tiktoken.Encoding:
    """A byte-level vocabulary of bytes alone: no real one makes more tokens of a text."""
    return tiktoken.Encoding(
        "bytes",
        pat_str=r"[\s\S]",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=200))
def test_text_never_has_more_tokens_than_its_body_has_bytes(text: str, worst_encoding: tiktoken.Encoding) -> None:
    assert input_bound(act(content=text)) >= len(worst_encoding.encode(text, disallowed_special=()))


def test_a_body_escaped_to_ascii_is_bounded_as_well() -> None:
    action = act(content="ü" * 1_000)
    escaped = json.dumps(json.loads(action.body or b"")).encode()
    assert input_bound(msgspec.structs.replace(action, body=escaped)) >= 2_000


def test_tools_add_the_prompt_that_a_provider_puts_before_them() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with_tools = act(tools=tools)
    assert with_tools.body is not None
    assert input_bound(with_tools) >= len(with_tools.body) + 530


@pytest.mark.parametrize(
    ("parts", "at_least"),
    [
        ([{"type": "text", "text": "hi"}], 0),
        ([{"type": "image_url", "image_url": {"url": "https://x/y.png"}}], PICTURE_TOKENS),
        ([{"type": "image_url", "image_url": {"url": "x"}}] * 3, 3 * PICTURE_TOKENS),
        ([{"type": "file", "file": {"file_id": "f"}}], FILE_TOKENS),
        ([{"type": "input_audio", "input_audio": {"data": "aa", "format": "wav"}}], FILE_TOKENS),
        ([{"type": "something_new"}], FILE_TOKENS),
        ([{"text": "no type"}], FILE_TOKENS),
    ],
)
def test_parts_that_only_point_at_content_are_counted_apart(parts: list[Any], at_least: int) -> None:
    plain = len(act(content=parts).body or b"")
    assert plain + at_least <= input_bound(act(content=parts)) < plain + at_least + 2_000


def test_whitespace_and_escapes_hide_no_picture() -> None:
    body = rb'{ "messages" : [ { "c\u006fntent" : [ {"t\u0079pe" : "imag\u0065_url"} ] } ] }'
    assert input_bound(msgspec.structs.replace(act(), body=body)) > PICTURE_TOKENS


@pytest.mark.parametrize("body", [b"{", b'{"messages": 5}', b'{"messages": [5]}', b"\xff"])
def test_messages_that_cannot_be_read_are_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        input_bound(msgspec.structs.replace(act(), body=body))
    assert refused.value.code == "malformed"


def test_an_action_without_a_body_is_bounded_by_its_arguments() -> None:
    assert input_bound(msgspec.structs.replace(act(prompt="x" * 1_000), body=None)) > 1_000


@pytest.mark.parametrize(
    ("arguments", "tokens"),
    [
        ({}, 4_096),
        ({"max_tokens": None}, 4_096),
        ({"max_tokens": 10}, 10),
        ({"max_tokens": 100_000}, 100_000),  # the catalogue's cap may be out of date
        ({"max_completion_tokens": 20}, 20),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 20),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"n": 3}, 12_288),
        ({"n": None}, 4_096),
    ],
)
def test_output_is_the_clients_cap_or_the_models_times_n(arguments: dict[str, Any], tokens: int) -> None:
    assert output_bound(arguments, MODEL) == tokens


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "7", True, [], {}])
def test_a_cap_that_is_no_positive_integer_is_refused(name: str, value: object) -> None:
    with pytest.raises(Refusal) as refused:
        output_bound({name: value}, MODEL)
    assert refused.value.code == "malformed"


def test_money_is_rounded_up_and_the_dearer_input_price_counts() -> None:
    model = msgspec.structs.replace(
        MODEL, input_nanousd_per_mtok=1, cached_input_nanousd_per_mtok=3, output_nanousd_per_mtok=0
    )
    assert bound_nanousd(model, 1, 0) == 1
    assert bound_nanousd(model, 1_000_000, 0) == 3
