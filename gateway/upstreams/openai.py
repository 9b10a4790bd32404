"""The native adapter for every provider that speaks OpenAI's chat completions, whatever its base URL.

Bytes in, bytes out: the request's body goes on as it is, the answer comes back as it came, so that fields nobody
here knows survive. Only the usage of a complete answer is read.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import msgspec

from gateway.actions import ModelTarget, Reply, Usage
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.offload import run_sized
from gateway.upstreams import failures
from gateway.upstreams.budget import AnswerBudget, Holding, full
from gateway.upstreams.clean_answer import without_secrets
from gateway.upstreams.credential import Credential
from gateway.upstreams.retries import Failed, Retries
from gateway.upstreams.wire import Answer, Headers, Transport, WireError, WireFull
from gateway.usage import usage_of_answer

_log = logging.getLogger(__name__)

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ANSWER_CAP_BYTES = 16 * 1024 * 1024  # a complete answer that is larger is refused
# Of a stream, this much is held at most on its way: what is kept of it for a case, and calls that wait for the end.
_STREAM_HELD_BYTES = 20 * 1024 * 1024
_STREAM_STEP_BYTES = 64 * 1024
_ERROR_CAP_BYTES = 256 * 1024  # of an error's body, more is not read


class _Outcome(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw(b"null")
    choices: msgspec.Raw = msgspec.Raw(b"null")


_outcomes = msgspec.json.Decoder(_Outcome)


def _only_failed(body: bytes) -> bool:
    """Whether a success by its status holds an error and no answer, as some providers send."""
    if b'"error"' not in body:
        return False
    outcome = _outcomes.decode(body)
    return bytes(outcome.error) != b"null" and bytes(outcome.choices) in (b"null", b"[]")


def _read(body: bytes) -> tuple[Usage | None, bool, bytes]:
    """The usage of a complete answer, whether it is only an error, and the answer without secrets."""
    body = body.removeprefix(_BYTE_ORDER_MARK)
    readable = body
    try:
        usage = usage_of_answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        readable = _tolerant(body)
        usage = usage_of_answer(readable)
    return usage, _only_failed(readable), without_secrets(body)


def _tolerant(body: bytes) -> bytes:
    """An answer with NaN or half of a character in it, which most clients read, as JSON. Raises ValueError."""
    value = json.loads(body, parse_constant=lambda _: None)
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def _full(provider: str) -> Refusal:
    return full(f"The model provider {provider}", {"provider": provider})


class OpenAiProvider:
    """One configured provider. Time-outs in seconds; `on_hang_up` is drain or cancel."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str,
        credential: Credential,
        transport: Transport,
        retries: Retries,
        clock: Clock,
        headers: dict[str, str] | None = None,
        budget: AnswerBudget | None = None,
        connect_timeout_s: float = 5.0,
        first_byte_timeout_s: float = 300.0,
        idle_timeout_s: float = 120.0,
        on_hang_up: str = "drain",
        drain_s: float = 30.0,
    ) -> None:
        self.name = name
        self._budget = budget or AnswerBudget()
        self.on_hang_up = on_hang_up
        self.drain_s = drain_s
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._host = urlsplit(base_url).hostname or ""
        self._credential = credential
        self._transport = transport
        self._retries = retries
        self._clock = clock
        self._extra: Headers = [
            (key.encode("ascii"), value.encode("latin-1")) for key, value in (headers or {}).items()
        ]
        self._connect_timeout_s = connect_timeout_s
        self._first_byte_timeout_s = first_byte_timeout_s
        self._idle_timeout_s = idle_timeout_s

    async def invoke(
        self, target: ModelTarget, body: bytes, *, stream: bool, request_id: str, traceparent: str | None = None
    ) -> Reply | SseStream:
        """Send a chat completion. Raises Refusal: upstream_failed, upstream_timeout, rate_limited."""
        return await self._retries.run(lambda: self._attempt(body, stream, request_id, traceparent))

    async def aclose(self) -> None:
        """Nothing of its own to close: the transport is shared, its owner closes it."""

    async def _attempt(self, body: bytes, stream: bool, request_id: str, traceparent: str | None) -> Reply | SseStream:
        key = self._credential.value()
        headers = self._headers(key, stream, request_id, traceparent)
        try:
            answer = await self._transport.request(
                "POST",
                self._url,
                headers,
                body,
                connect_timeout_s=self._connect_timeout_s,
                first_byte_timeout_s=self._first_byte_timeout_s,
                idle_timeout_s=self._idle_timeout_s,
                resend=self._retries.allowed,
            )
            if not 200 <= answer.status < 300:
                raise await self._failed(answer)
            kind = (answer.header(b"content-type") or b"").lower()
            if answer.header(b"content-encoding") not in (None, b"identity"):
                await answer.aclose()
                raise self._odd("a compressed body, which was not asked for")
            if stream:
                if not kind.startswith(b"text/event-stream"):
                    await answer.aclose()
                    raise self._odd("something that is not an event stream, though one was asked for")
                return SseStream(self.name, answer, self._budget.of_task())
            whole = await answer.read(ANSWER_CAP_BYTES, self._budget.of_task())
        except WireFull:
            raise Failed(_full(self.name), again=False) from None
        except WireError as fault:
            # Nothing was sent: safe to send again. Else the provider may be working on it, for money.
            raise Failed(failures.of_wire(self.name, fault), again=not fault.dispatched) from fault
        try:
            usage, failed, clean = await run_sized(len(whole), _read, whole)
        except (ValueError, RecursionError):
            raise self._odd("something that is not a JSON object, or one nested too deeply") from None
        if failed:
            raise Failed(self._refusal(answer, whole), again=False)  # it may have been paid for
        return Reply(status=answer.status, body=clean, headers={"content-type": "application/json"}, usage=usage)

    def _headers(self, key: str | None, stream: bool, request_id: str, traceparent: str | None) -> Headers:
        headers: Headers = [
            (b"content-type", b"application/json"),
            (b"accept", b"text/event-stream" if stream else b"application/json"),
            (b"accept-encoding", b"identity"),
            (b"x-client-request-id", request_id.encode("ascii", "replace")),
        ]
        if traceparent is not None:
            headers.append((b"traceparent", traceparent.encode("ascii")))
        if key is not None:
            headers.append((b"authorization", b"Bearer " + key.encode("ascii")))
        return headers + self._extra

    async def _failed(self, answer: Answer) -> Failed:
        """What an answer other than 2xx means. Its body is read as far as it is small and comes in time."""
        try:
            body = await answer.read(_ERROR_CAP_BYTES)
        except WireError:
            body = b""
        now_ns = self._clock.now_ns()
        refusal = self._refusal(answer, body)
        if answer.status in (401, 403):
            _log.warning("provider %s refused the gateway's credential: %d", self.name, answer.status)
            self._credential.forget()
        return Failed(
            refusal,
            again=failures.worth_repeating(answer.status, answer.headers, refusal),
            wait_s=failures.retry_after_s(answer.headers, now_ns),
        )

    def _refusal(self, answer: Answer, body: bytes) -> Refusal:
        return failures.of_status(
            self.name,
            answer.status,
            answer.headers,
            body,
            hide=(self._host,),
            now_ns=self._clock.now_ns(),
        )

    def _odd(self, what: str) -> Failed:
        return Failed(failures.not_understood(self.name, what), again=False)


class SseStream:
    """A streamed answer, as it arrives. Iterating raises Refusal where the provider breaks off.

    It is not redacted here but by the door, which knows the texts that the pieces belong to.
    """

    __slots__ = ("_answer", "_held", "_holding", "_provider", "_size", "headers", "status")

    def __init__(self, provider: str, answer: Answer, holding: Holding) -> None:
        self.status = answer.status
        self.headers = {"content-type": "text/event-stream"}
        self._provider = provider
        self._answer = answer
        self._holding = holding
        self._size = self._held = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._answer.__anext__()
        except WireError as fault:
            raise failures.of_wire(self._provider, fault) from fault
        self._size += len(piece)
        if self._size > self._held:  # in steps, as most pieces are small
            self._held = min(self._size + _STREAM_STEP_BYTES, _STREAM_HELD_BYTES)
            if not self._holding.at_least(self._held):
                raise _full(self._provider)
            if self._held == _STREAM_HELD_BYTES:
                self._held = sys.maxsize  # nothing more of it is held, however long it gets
        return piece

    async def aclose(self) -> None:
        """Stop the provider, unless the answer is complete."""
        await self._answer.aclose()
