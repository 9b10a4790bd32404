"""Reads answers with the real Python SDKs, openai and LangChain's. Run by .venv-sdk's Python.

One line of JSON in, one line out. In: `[{"kind": "stream" or "plain", "pieces": [base64, ...], "tools": [name, ...],
"readers": [name, ...] or null for all}, ...]`. Out: `[{reader: reading, ...}, ...]`.

A reading is what an agent on this SDK gets: `calls`, each `{choice, kind, id, name, text, value}`, where `text` is the
arguments as text and `value` is JSON of the arguments as the SDK parsed them; the SDK does not expose what is null.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI
from openai import DefaultHttpxClient, OpenAI

Item = dict[str, Any]
Reading = dict[str, Any]
_MESSAGES: list[Any] = [{"role": "user", "content": "Go on."}]


class _Pieces(httpx2.SyncByteStream):
    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            yield base64.b64decode(piece)


class _Answers(httpx2.BaseTransport):
    """Answers every request with the pieces of the current item."""

    def __init__(self) -> None:
        self.item: Item = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        kind = "text/event-stream" if self.item["kind"] == "stream" else "application/json"
        return httpx2.Response(200, headers={"content-type": kind}, stream=_Pieces(self.item["pieces"]))


_answers = _Answers()
_transport: Any = _answers  # which httpx it is depends on the version of the SDK
_http = DefaultHttpxClient(transport=_transport)
_client = OpenAI(api_key="none", base_url="http://provider.test/v1", max_retries=0, http_client=_http)
_model = ChatOpenAI(
    model="m",
    api_key="none",
    base_url="http://provider.test/v1",
    max_retries=0,
    http_client=_http,
    use_responses_api=False,
)


def _reading() -> Reading:
    return {"calls": [], "text": "", "finish": {}, "error": None}


def _failed(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _call(choice: Any, kind: str, call_id: Any, name: Any, text: Any, value: object = None) -> dict[str, Any]:
    parsed = None if value is None else json.dumps(value)
    return {"choice": choice, "kind": kind, "id": call_id, "name": name, "text": text, "value": parsed}


def _field(holder: Any, name: str) -> Any:
    """A field of a model, or of what the SDK left a dict because it has no model for it."""
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)


def _text(content: Any) -> str:
    """Text, or the texts of a list of parts."""
    if isinstance(content, list):
        return "".join(_text(_field(part, "text")) for part in content)
    return content if isinstance(content, str) else ""


def _note_choices(reading: Reading, choices: Any) -> None:
    """Add what an agent reads from the choices of a completion."""
    for choice in choices:
        reading["finish"][choice.index] = choice.finish_reason
        message = choice.message
        reading["text"] += _text(message.content)
        for call in message.tool_calls or []:
            for kind, text in (("function", "arguments"), ("custom", "input")):
                held = _field(call, kind)
                if held is not None:
                    noted = _call(choice.index, kind, call.id, _field(held, "name"), _field(held, text))
                    reading["calls"].append(noted)
        legacy = message.function_call
        if legacy is not None:
            reading["calls"].append(_call(choice.index, "legacy", None, legacy.name, legacy.arguments))


class _ByHand:
    """Chunks joined by index, as the OpenAI cookbook and many agents do."""

    def __init__(self) -> None:
        self.reading = _reading()
        self._calls: dict[tuple[Any, ...], dict[str, Any]] = {}

    def add(self, chunk: Any) -> None:
        for choice in chunk.choices:
            if choice.finish_reason:
                self.reading["finish"][choice.index] = choice.finish_reason
            delta = choice.delta
            self.reading["text"] += delta.content or ""
            for part in delta.tool_calls or []:
                for kind, text in (("function", "arguments"), ("custom", "input")):
                    held = _field(part, kind)
                    if held is not None:
                        self._join((choice.index, kind, part.index), part.id, held, text)
            if delta.function_call is not None:
                self._join((choice.index, "legacy", 0), None, delta.function_call, "arguments")
        self.reading["calls"] = list(self._calls.values())

    def _join(self, key: tuple[Any, ...], call_id: Any, held: Any, text: str) -> None:
        call = self._calls.setdefault(key, _call(key[0], key[1], call_id, "", ""))
        call["id"] = call["id"] or call_id
        call["name"] += _field(held, "name") or ""
        call["text"] += _field(held, text) or ""


def openai_by_hand() -> dict[str, Reading]:
    """`create(stream=True)`, joined by hand. It sees all chunks; `stream()` passes over those without an `object`."""
    hand = _ByHand()
    try:
        for chunk in _client.chat.completions.create(model="m", messages=_MESSAGES, stream=True):
            hand.add(chunk)
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises is what its user gets
        hand.reading["error"] = _failed(error)
    return {"openai-python by hand": hand.reading}


def openai_stream() -> dict[str, Reading]:
    """`client.chat.completions.stream()`, used in the three ways that agents use it.

    Its final completion; the snapshot that it has at the end, which is neither parsed nor checked; its events of calls
    that are done.
    """
    final, state, events = _reading(), _reading(), _reading()
    snapshot: Any = None
    try:
        with _client.chat.completions.stream(model="m", messages=_MESSAGES) as stream:
            for event in stream:
                if event.type == "chunk":
                    snapshot = event.snapshot
                elif event.type == "tool_calls.function.arguments.done":
                    events["calls"].append(_call(None, "function", None, event.name, event.arguments))
                elif event.type == "content.delta":
                    events["text"] += event.delta
            if snapshot is not None:
                _note_choices(state, snapshot.choices)
    except Exception as error:  # noqa: BLE001 - as above
        for reading in (final, state, events):
            reading["error"] = _failed(error)
    else:
        try:
            _note_choices(final, stream.get_final_completion().choices)
        except Exception as error:  # noqa: BLE001 - as above
            final = {**_reading(), "error": _failed(error)}
    return {
        "openai-python": final,
        "openai-python snapshot": state,
        "openai-python events": events,
    }


def _note_langchain(reading: Reading, message: AIMessage, texts: list[str | None]) -> None:
    reading["text"] = str(message.text)
    reading["finish"][0] = message.response_metadata.get("finish_reason")
    for at, call in enumerate(message.tool_calls):
        text = texts[at] if at < len(texts) else None
        reading["calls"].append(_call(None, "function", call["id"], call["name"], text, call["args"]))
    legacy = message.additional_kwargs.get("function_call")
    if legacy is not None:
        reading["calls"].append(_call(None, "legacy", None, legacy.get("name"), legacy.get("arguments")))
    if message.invalid_tool_calls:
        reading["error"] = f"invalid_tool_calls: {json.dumps(message.invalid_tool_calls)}"


def langchain_stream() -> dict[str, Reading]:
    """`ChatOpenAI.stream()`, its chunks added up."""
    reading = _reading()
    message: AIMessageChunk | None = None
    try:
        for chunk in _model.stream("Go on."):
            assert isinstance(chunk, AIMessageChunk)
            message = chunk if message is None else message + chunk
        if message is not None:
            valid = not message.invalid_tool_calls  # else it is not known which text belongs to which call
            _note_langchain(reading, message, [one["args"] for one in message.tool_call_chunks] if valid else [])
    except Exception as error:  # noqa: BLE001 - as above
        reading = {**_reading(), "error": _failed(error)}
    return {"langchain": reading}


def openai_create() -> dict[str, Reading]:
    reading = _reading()
    try:
        _note_choices(reading, _client.chat.completions.create(model="m", messages=_MESSAGES).choices)
    except Exception as error:  # noqa: BLE001 - as above
        reading = {**_reading(), "error": _failed(error)}
    return {"openai-python": reading}


def langchain_invoke() -> dict[str, Reading]:
    reading = _reading()
    try:
        message = _model.invoke("Go on.")
        assert isinstance(message, AIMessage)
        _note_langchain(reading, message, [])
    except Exception as error:  # noqa: BLE001 - as above
        reading = {**_reading(), "error": _failed(error)}
    return {"langchain": reading}


READERS: dict[str, dict[str, Callable[[], dict[str, Reading]]]] = {
    "stream": {"openai-python": openai_stream, "openai-python by hand": openai_by_hand, "langchain": langchain_stream},
    "plain": {"openai-python": openai_create, "langchain": langchain_invoke},
}


def _read(item: Item) -> dict[str, Reading]:
    _answers.item = item
    readings: dict[str, Reading] = {}
    for name, reader in READERS[item["kind"]].items():
        if item["readers"] is None or name in item["readers"]:
            readings |= reader()
    return readings


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda _: None  # LangChain's generators fail once more as they are closed
    for line in sys.stdin:
        sys.stdout.write(json.dumps([_read(item) for item in json.loads(line)]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
