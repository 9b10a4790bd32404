"""What a request carries or points at beside text is bounded by what it can be, and hidden in no corner of it."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits import input_bound
from gateway.limits.bounds import asked_of
from gateway.limits.inline_data import FILE_TOKENS, PICTURE_TOKENS, SOUND_TOKENS_PER_S
from tests.limits.house import MODEL, act

LARGE = base64.b64encode(bytes(range(256)) * 1_600).decode()  # 400 kB
PICTURE = f"data:image/png;base64,{LARGE}"
SMALL = 2_000
"""More than what stands around the content in a request."""


def wav(seconds: int, *, rate: int = 16_000, form: int = 1) -> str:
    """A mono recording of 16-bit samples."""
    size = seconds * rate * 2
    head = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVE"
    layout = struct.pack("<HHIIHH", form, 1, rate, rate * 2, 2, 16)
    data = head + b"fmt " + struct.pack("<I", 16) + layout + b"data" + struct.pack("<I", size) + bytes(size)
    return base64.b64encode(data).decode()


def mp3(size: int) -> str:
    return base64.b64encode(b"\xff\xfb\x90\x00" + bytes(size)).decode()


def bound(*parts: object) -> int:
    return input_bound(act(content=list(parts)))


def of_message(**members: Any) -> int:
    """The bound of a request with one message like this."""
    body = msgspec.json.encode({"model": "demo", "messages": [{"role": "assistant", **members}]})
    return input_bound(msgspec.structs.replace(act(), body=body))


def of_body(**fields: Any) -> int:
    return input_bound(act(**fields))


# ------------------------------------------------------------ inline data is bounded by what it can be


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "high"}},
        {"type": "image_url", "image_url": PICTURE},
        {"type": "input_image", "image_url": PICTURE},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": LARGE}},
        {"type": "image_url", "image_url": {"url": PICTURE.replace("data:image/png", "DATA:image/PNG")}},
    ],
    ids=["object", "text", "input style", "Anthropic", "capitals"],
)
def test_a_picture_costs_by_its_pixels_and_not_by_its_bytes(part: dict[str, Any]) -> None:
    assert PICTURE_TOKENS <= bound(part) < PICTURE_TOKENS + SMALL


def test_each_picture_counts() -> None:
    parts = [{"type": "image_url", "image_url": {"url": PICTURE}}] * 3
    assert 3 * PICTURE_TOKENS <= bound(*parts) < 3 * PICTURE_TOKENS + SMALL


@pytest.mark.parametrize("seconds", [1, 60])
def test_a_recording_costs_by_its_length(seconds: int) -> None:
    part = {"type": "input_audio", "input_audio": {"data": wav(seconds), "format": "wav"}}
    true = seconds * SOUND_TOKENS_PER_S
    assert true <= bound(part) < true + SMALL


def test_an_mp3_costs_by_the_length_that_it_could_have() -> None:
    part = {"type": "input_audio", "input_audio": {"data": mp3(480_000), "format": "mp3"}}
    assert 480 * SOUND_TOKENS_PER_S <= bound(part) < 480 * SOUND_TOKENS_PER_S + SMALL


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (wav(1, form=17), "wav"),  # compressed samples
        (wav(1, rate=1), "wav"),  # a second for each sample
        (LARGE[:4_000], "wav"),
        (LARGE[:4_000], "mp3"),
        (LARGE[:4_000], "opus"),
        (LARGE[:4_000], "flac"),
        (LARGE[:4_000], 5),
    ],
)
def test_sound_whose_bytes_say_nothing_of_its_length_can_be_long(data: str, form: object) -> None:
    assert bound({"type": "input_audio", "input_audio": {"data": data, "format": form}}) >= FILE_TOKENS


def test_an_inline_file_has_as_many_tokens_as_files_have() -> None:
    data = f"data:application/pdf;base64,{LARGE}"
    size = len(LARGE) * 3 // 4
    assert size <= bound({"type": "file", "file": {"file_data": data}}) < size + SMALL
    assert FILE_TOKENS <= bound({"type": "file", "file": {"file_data": data[:4_000]}}) < FILE_TOKENS + SMALL


def test_a_file_of_text_is_bounded_by_its_bytes() -> None:
    data = f"data:text/plain;base64,{LARGE}"
    assert len(LARGE) <= bound({"type": "file", "file": {"file_data": data}})


# ------------------------------------------------------------ text stays text


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": PICTURE},
        {"type": "input_text", "text": PICTURE},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": PICTURE}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "not base64! " * 40_000}},
        {"type": "image_url", "image_url": {"url": f"data:image/png,{LARGE}"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "text": PICTURE}},
        {"type": "something_new", "note": PICTURE},
        {"type": "something_new", "image_url": PICTURE},
    ],
    ids=["text", "input style", "a document", "no base64", "not called base64", "text in it", "unknown", "unknown too"],
)
def test_what_could_be_read_as_text_is_bounded_by_its_bytes(part: dict[str, Any]) -> None:
    assert bound(part) >= 400_000


@settings(deadline=None)
@given(text=st.text(max_size=60), before=st.sampled_from(["", "data:image/png;base64,", "data:,", "https://", "data:"]))
def test_no_text_is_ever_taken_out_of_the_bytes(text: str, before: str) -> None:
    for content in (before + text, [{"type": "text", "text": before + text}]):
        action = act(content=content)
        assert input_bound(action) >= len(action.body or b"")


def test_words_that_look_like_references_are_text() -> None:
    plain = of_message(content="See https://example.org/a.pdf and file-123, data:image/png;base64,AAAA")
    assert plain < SMALL
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"url": "https://x/y"}'}}
    assert of_message(content=None, tool_calls=[call]) < SMALL
    assert of_message(content="x", annotations=[{"type": "url_citation", "url": "https://x/y"}]) < SMALL
    assert of_body(metadata={"file_id": "f"}, user="https://x/y", tools=TOOLS) < SMALL + len(msgspec.json.encode(TOOLS))


TOOLS = [
    {
        "type": "function",
        "function": {"name": "fetch", "parameters": {"type": "object", "properties": {"file_id": {"format": "uri"}}}},
    }
]


# ------------------------------------------------------------ references, wherever they stand


REFERENCES = [
    pytest.param({"content": [{"type": "file", "file": {"file_id": "file-1"}}]}, id="a file by its id"),
    pytest.param({"content": {"type": "file", "file": {"file_id": "file-1"}}}, id="content that is one part"),
    pytest.param({"content": [[{"type": "file", "file": {"file_id": "file-1"}}]]}, id="a list in a list"),
    pytest.param({"content": [{"type": "input_file", "file_url": "https://x/y.pdf"}]}, id="a file by its URL"),
    pytest.param({"content": [{"type": "video_url", "video_url": {"url": "https://x/y"}}]}, id="a film"),
    pytest.param({"content": [{"type": "image_url", "image_url": {"url": "gs://x/y.pdf"}}]}, id="a bucket"),
    pytest.param({"content": [{"type": "text", "text": "x", "file_id": "file-1"}]}, id="beside a text"),
    pytest.param({"content": None, "audio": {"id": "audio_1"}}, id="an earlier spoken answer"),
    pytest.param({"content": "x", "attachments": [{"file_id": "file-1"}]}, id="a member nobody knows"),
    pytest.param({"content": "x", "documents": ["https://x/y"]}, id="documents by URL"),
    pytest.param(
        {"content": [{"type": "tool_result", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        id="in a tool result",
    ),
    pytest.param({"role": "tool", "content": [{"type": "document", "source": {"url": "https://x"}}]}, id="in a tool"),
]


@pytest.mark.parametrize("message", REFERENCES)
def test_what_is_only_pointed_at_is_as_large_as_a_file_can_be(message: dict[str, Any]) -> None:
    assert of_message(**message) >= FILE_TOKENS


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "content": [{"type": "image_url", "image_url": "https://x/y.png"}]},
        {"content": [{"type": "tool_result", "content": [{"type": "image", "source": {"url": "https://x/y"}}]}]},
        {"content": "x", "images": ["https://x/y.png"]},
        {"content": [{"type": "image_file", "image_file": {"file_id": "file-1"}}]},
    ],
)
def test_a_picture_counts_wherever_it_stands(message: dict[str, Any]) -> None:
    assert PICTURE_TOKENS <= of_message(**message) < PICTURE_TOKENS + SMALL


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"extra_body": {"google": {"cached_content": "cachedContents/1"}}},
        {"data_sources": [{"type": "azure_search", "parameters": {"endpoint": "https://x"}}]},
        {"container": "cntr_1"},
        {"file_ids": ["file-1"]},
        {"fileUri": "https://x/y"},
        {"prediction": {"type": "content", "content": [{"type": "file", "file": {"file_id": "f"}}]}},
        {"input": [{"type": "input_file", "file_id": "f"}]},
        {"web_search_options": {}},
        {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
    ],
)
def test_what_the_body_points_at_is_bounded_too(fields: dict[str, Any]) -> None:
    assert of_body(**fields) >= FILE_TOKENS


@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1},
        {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
        {"provider": {"order": ["a", "b"]}, "transforms": ["middle-out"]},
        {"reasoning_effort": "high", "prompt_cache_key": "k", "prompt_cache_retention": "24h"},
        {"service_tier": "priority"},
        {"vendor": {"flag": True, "name": "x"}},
    ],
)
def test_fields_that_point_at_nothing_add_nothing(fields: dict[str, Any]) -> None:
    assert of_body(**fields) < SMALL


def test_the_window_of_the_model_bounds_what_is_pointed_at() -> None:
    reference = act(content=[{"type": "file", "file": {"file_id": "file-1"}}] * 5)
    for window in (16_000, 1_000_000):
        model = msgspec.structs.replace(MODEL, max_input_tokens=window)
        asked = asked_of(reference, model)
        assert window <= asked.input_tokens + asked.media_tokens < window + SMALL
    sound = act(content=[{"type": "input_audio", "input_audio": {"data": "aa", "format": "opus"}}])
    asked = asked_of(sound, msgspec.structs.replace(MODEL, max_input_tokens=16_000))
    assert asked.media_tokens == 16_000


def test_what_is_nested_deeply_is_bounded_and_not_followed_for_ever() -> None:
    deep: Any = {"type": "text", "text": "x"}
    for _ in range(200):
        deep = [deep]
    assert bound(deep) >= FILE_TOKENS
