"""What an answer says of itself is read where it can be, and never in the way where it can't."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.actions import Answered
from gateway.doors.openai.answered import answered
from tests.e2e.upstream import completion, words


def events(*found: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in found) + b"data: [DONE]\n\n"


def test_of_a_complete_answer() -> None:
    assert answered(json.dumps(completion("Hello.")).encode(), stream=False) == Answered(
        "chatcmpl-1", "served", ("stop",)
    )


def test_of_a_stream_from_its_first_event_and_its_last_ones() -> None:
    told = words(*(str(number) for number in range(100)))
    assert answered(b": a comment\n\n" + events(*told), stream=True) == Answered("chatcmpl-1", "served", ("stop",))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"id": 7}', b"\xff", b"data: {", b'{"choices": [{"finish_reason": 1}]}']
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_can_not_be_read_is_not_told(body: bytes, stream: bool) -> None:
    assert answered(body, stream=stream) == Answered()
