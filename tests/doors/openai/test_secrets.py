"""A provider that repeats the gateway's key, in whatever pieces, is not heard; everything else arrives as it was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import known_secrets
from gateway.doors.openai.secrets import without_secrets
from gateway.doors.openai.stream import ChatStream
from gateway.known_secrets import KNOWN
from gateway.redaction import Redactor
from tests.doors.openai.streams import Judge, call, chunk, events_of, fn, read, sse, streamed

KEY = "sk-live-0123456789abcdef"
DONE = "[DONE]"


@pytest.fixture(autouse=True)
def _known() -> None:
    known_secrets.remember("env:KEY", KEY)


def torn(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def joined(out: bytes, *path: str, index: int = 0) -> str:
    """A text as a client joins it."""
    text = ""
    for event in events_of(out):
        for choice in event["choices"]:
            value: Any = choice["delta"] if choice["index"] == index else {}
            for step in path:
                value = (value[0] if isinstance(value, list) and value else value or {}).get(step)
            text += value or ""
    return text


@pytest.mark.parametrize("size", [1, 2, 5, 23, 24, 50])
@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning", "refusal", "whatever_comes_next"])
async def test_a_key_torn_across_chunks_is_redacted_in_every_text(field: str, size: int) -> None:
    said = f"My key is {KEY}, and skill-sk"
    events = [chunk({field: piece}) for piece in torn(said, size)]
    out = await streamed(sse(*events, chunk({}, "stop"), DONE))
    assert joined(out, field) == "My key is [redacted], and skill-sk"
    assert read(out).finish == "stop"


@pytest.mark.parametrize("ending", [[chunk({}, "stop"), DONE], [DONE], [], [chunk({"content": ""}, "stop")]])
async def test_a_text_that_ends_like_a_beginning_of_a_key_arrives_in_full(ending: list[Any]) -> None:
    out = await streamed(sse(chunk({"content": "yes"}), *ending))
    assert read(out).text == "yes"


async def test_a_text_continued_after_its_finish_is_one_text() -> None:
    out = await streamed(sse(chunk({"content": KEY[:9]}), chunk({}, "stop"), chunk({"content": KEY[9:]}), DONE))
    assert read(out).text == "[redacted]"


async def test_texts_of_several_choices_and_fields_are_not_mixed() -> None:
    parts = [
        chunk({"content": KEY[:6]}, index=0),
        chunk({"content": KEY[:6]}, index=1),
        chunk({"reasoning": KEY[6:]}, index=0),
    ]
    parts += [
        chunk({"content": KEY[6:]}, index=1),
        chunk({"content": "!"}, index=0),
        chunk({}, "stop"),
        chunk({}, "stop", 1),
    ]
    out = await streamed(sse(*parts, DONE), choices=2)
    assert (read(out).text, joined(out, "reasoning")) == (f"{KEY[:6]}!", KEY[6:])
    assert read(out, 1).text == "[redacted]"


async def test_texts_in_parts_are_redacted_too() -> None:
    parts = [
        chunk({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": piece}]})
        for piece in torn(KEY + "s", 5)
    ]
    out = await streamed(sse(*parts, chunk({}, "stop"), DONE))
    assert joined(out, "reasoning_details", "text") == "[redacted]s"
    assert all(
        part["type"] == "reasoning.text"
        for event in events_of(out)
        for choice in event["choices"]
        for part in choice["delta"].get("reasoning_details", ())
    )


async def test_only_the_end_that_may_begin_a_key_waits() -> None:
    async def source() -> Any:
        yield sse(chunk({"content": "this"}))
        seen.append(len(out))
        yield sse(chunk({"content": " is"}))
        seen.append(len(out))
        yield sse(chunk({"content": " it"}))
        seen.append(len(out))

    out: list[bytes] = []
    seen: list[int] = []
    async for piece in ChatStream(Judge(), keep_usage=False).run(source()):
        out.append(piece)  # noqa: PERF401 - the source looks at it meanwhile
    assert seen == [1, 2, 3], "no event waits for another"
    assert [joined(piece, "content") for piece in out] == ["thi", "s i", "s it"]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("escaped", [False, True])
async def test_a_key_in_arguments_is_redacted_before_they_are_judged(size: int, escaped: bool) -> None:
    key = KEY.replace("0", "\\u0030").replace("s", "\\u0073") if escaped else KEY
    arguments = f'{{"token": "{key}", "n": 1.50}}'
    first = fn("send", "", index=0, id="1", type="function")
    parts = [chunk(call(first)), *(chunk(call(fn(None, piece, index=0))) for piece in torn(arguments, size))]
    judge = Judge()
    out = await streamed(sse(*parts, chunk({}, "tool_calls"), DONE), judge)
    assert read(out).calls == [("send", '{"token": "[redacted]", "n": 1.50}')]
    assert judge.asked[0].arguments == {"token": "[redacted]", "n": 1.5}


async def test_escapes_and_fields_beside_the_texts_hide_no_key() -> None:
    raw = json.dumps(chunk({"content": "x", KEY: 1}, note=[KEY])).replace("sk-live", "\\u0073k-l\\u0069ve")
    out = await streamed(b"data: " + raw.encode() + b"\n\n" + sse(chunk({}, "stop"), DONE))
    assert b"0123456789abcdef" not in out
    assert out.count(b"[redacted]") == 2


async def test_logprobs_repeat_no_key() -> None:
    def tokens(*texts: str) -> dict[str, Any]:
        return {
            "logprobs": {"content": [{"token": text, "logprob": -0.1, "bytes": list(text.encode())} for text in texts]}
        }

    honest = [chunk({"content": piece}, **tokens(piece)) for piece in ("Le", "ss", " is", " more")]
    out = await streamed(sse(*honest, chunk({}, "stop"), DONE))
    told = [
        one["token"]
        for e in events_of(out)
        for c in e["choices"]
        for one in (c.get("logprobs") or {}).get("content", ())
    ]
    assert told == ["Le", "ss", " is", " more"]
    out = await streamed(
        sse(*(chunk({"content": piece}, **tokens(piece)) for piece in torn(KEY, 5)), chunk({}, "stop"), DONE)
    )
    assert read(out).text == "[redacted]"
    assert b"token" not in out


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["X", "XY", "Y", "XXY", "Z"]), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["content", "reasoning"]), st.text("XYZ\n", max_size=5)),
        max_size=12,
    ),
    st.booleans(),
)
async def test_any_split_of_any_stream_is_as_its_joined_texts(
    secrets: list[str], parts: list[tuple[int, str, str]], spaced: bool
) -> None:
    KNOWN.redactor = Redactor(secrets)
    events = [chunk({field: piece}, index=index) for index, field, piece in parts]
    separators = (", ", ": ") if spaced else (",", ":")
    data = b"".join(b"data: " + json.dumps(event, separators=separators).encode() + b"\n\n" for event in events)
    for source in (data, without_secrets(KNOWN.redactor, data)):
        out = await streamed(source + sse(chunk({}, "stop"), DONE), choices=2)
        for index in (0, 1):
            for field in ("content", "reasoning"):
                text = "".join(piece for one, name, piece in parts if (one, name) == (index, field))
                assert joined(out, field, index=index) == KNOWN.redactor.redact(text)


async def test_a_stream_is_kept_without_the_key_and_otherwise_as_it_came() -> None:
    parts = [chunk({"content": piece}) for piece in torn(f"Key: {KEY}", 4)]
    parts += [chunk(call(fn("send", "", index=0, id="1", type="function")))]
    parts += [
        chunk(call(fn(None, piece, index=0)))
        for piece in torn(f'{{"token":"{KEY.replace("s", chr(92) + "u0073")}"}}', 4)
    ]
    stream = sse(*parts, chunk({}, "tool_calls"), DONE)
    kept = without_secrets(KNOWN.redactor, stream)
    assert await streamed(kept) == await streamed(kept + b"")
    assert (read(await streamed(kept)).text, read(await streamed(kept)).calls) == (
        "Key: [redacted]",
        [("send", '{"token":"[redacted]"}')],
    )
    assert joined(kept, "content") == "Key: [redacted]"
    assert KEY not in json.dumps(
        [joined(kept, "content"), *(c["delta"] for e in events_of(kept) for c in e["choices"])]
    )
    harmless = sse(chunk({"content": "Hi, "}), chunk({}, "stop"), DONE)
    assert without_secrets(KNOWN.redactor, harmless) is harmless
