"""The door itself: routes, answers, streams and hang-ups of the OpenAI dialect. Pure ASGI."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

import orjson
import structlog

from gateway.actions import Action, Kind, ModelTarget
from gateway.doors.desk import WRONG_HOST, Desk, Intake, Receive, Scope, Send
from gateway.doors.openai.errors import error_body, error_event, error_headers, rate_headers
from gateway.doors.openai.request import parse_request
from gateway.errors import Refusal
from gateway.running import Running, Sink

log = structlog.get_logger("gateway.doors.openai")

DOOR = "openai.chat"
# A client that takes nothing for this long, while an answer waits for it, counts as gone.
STALLED_CLIENT_S = 120.0
# What is left to send once the action has ended may take this long.
END_S = 30.0

Headers = list[tuple[bytes, bytes]]


class Governs(Protocol):
    """What this door asks of the governor."""

    def start(self, action: Action, sink: Sink | None = None) -> Running: ...
    async def list_models(self, action: Action) -> tuple[ModelTarget, ...]: ...
    async def refuse(self, action: Action, refusal: Refusal) -> None: ...
    def unauthenticated(self) -> None: ...


class OpenAIDoor:
    """Serves every path of the OpenAI API; the dispatcher hands them over."""

    def __init__(self, desk: Desk, governor: Governs) -> None:
        self._desk = desk
        self._governor = governor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._desk.request_id()
        answer = _Answer(send, request_id)
        intake: Intake | None = None
        try:
            if (wrong_host := scope.get(WRONG_HOST)) is not None:
                raise wrong_host
            intake = await self._desk.admit(scope, request_id)
            await self._route(scope, receive, intake, answer)
        except Refusal as refusal:
            if refusal.code in ("unauthenticated", "wrong_host"):
                self._governor.unauthenticated()
            await answer.refuse(refusal)
        except Exception:
            log.exception("door_fault", request_id=request_id)
            await answer.refuse(
                Refusal("internal", f"The gateway failed on this request; its log has the request id {request_id}.")
            )

    async def _route(self, scope: Scope, receive: Receive, intake: Intake, answer: _Answer) -> None:
        if intake.fault is not None:
            await self._governor.refuse(self._blank(intake), intake.fault)
            raise intake.fault
        path: str = scope["path"].removeprefix("/v1").rstrip("/")
        method: str = scope["method"]
        if path == "/chat/completions":
            if method != "POST":
                raise await self._refusal(intake, "method_not_allowed", "Chat completions are asked for with POST.")
            await self._chat(scope, receive, intake, answer)
        elif path == "/models" or path.startswith("/models/"):
            if method != "GET":
                raise await self._refusal(intake, "method_not_allowed", "Models are listed with GET.")
            await self._models(intake, answer, path.removeprefix("/models").removeprefix("/"))
        else:
            raise await self._refusal(
                intake,
                "not_governed",
                f"The gateway does not govern {scope['path'][:200]} yet, so it is refused; use /v1/chat/completions.",
            )

    async def _chat(self, scope: Scope, receive: Receive, intake: Intake, answer: _Answer) -> None:
        try:
            request = parse_request(await self._desk.body(scope, receive, agent_id=intake.caller.agent.id))
            action = self._desk.action(
                intake,
                kind=Kind.MODEL_INVOKE,
                door=DOOR,
                target=request.model,
                arguments=request.arguments,
                identity_arguments=request.identity,
                body=request.body,
                stream=request.stream,
            )
        except Refusal as refusal:
            await self._governor.refuse(self._blank(intake), refusal)
            raise
        answer.action_id = action.id
        if not request.stream:
            running = self._governor.start(action)
            try:
                reply = await running.reply()
            finally:
                answer.decided_by(running)
            if reply is not None:
                await answer.send(reply.status, [(b"content-type", b"application/json")], reply.body)
            return
        running = self._governor.start(action, answer)
        answer.running = running
        await self._until_over(running, receive, answer)
        answer.decided_by(running)
        await running.reply()  # raises the refusal of a stream that never began
        await answer.end()

    async def _until_over(self, running: Running, receive: Receive, answer: _Answer) -> None:
        """Wait for a streamed action; a client that hangs up, or takes nothing any more, leaves it."""
        assert running.task is not None
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            while True:
                sent = answer.chunks
                watched: set[asyncio.Future[object]] = {running.task, gone}  # type: ignore[arg-type]
                done, _ = await asyncio.wait(watched, timeout=STALLED_CLIENT_S, return_when=asyncio.FIRST_COMPLETED)
                if running.task in done:
                    return
                if gone in done:
                    running.leave()
                    answer.closed = True
                    await asyncio.wait({running.task})
                    return
                if answer.sending and answer.chunks == sent:
                    running.leave(at_once=True)
        finally:
            gone.cancel()

    async def _models(self, intake: Intake, answer: _Answer, wanted: str) -> None:
        action = self._desk.action(intake, kind=Kind.MODEL_INVOKE, door="openai.models", target="*", arguments={})
        answer.action_id = action.id
        rows = [_model_row(model) for model in await self._governor.list_models(action)]
        if not wanted:
            body = orjson.dumps({"object": "list", "data": rows})
        else:
            found = next((row for row in rows if row["id"] == wanted), None)
            if found is None:
                message = f"There is no model {wanted[:200]} for this agent."
                raise await self._refusal(intake, "model_not_found", message)
            body = orjson.dumps(found)
        await answer.send(200, [(b"content-type", b"application/json")], body)

    def _blank(self, intake: Intake) -> Action:
        """An action for a request that could not be read: who, when and through which door is known, no more."""
        return self._desk.action(intake, kind=Kind.MODEL_INVOKE, door=DOOR, target="", arguments={})

    async def _refusal(self, intake: Intake, code: str, message: str) -> Refusal:
        refusal = Refusal(code, message)
        await self._governor.refuse(self._blank(intake), refusal)
        return refusal


class _Answer:
    """One HTTP answer: complete, streamed, or refused; refusals after the head become an error event."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self._began = False
        self._failed = False
        self.action_id: str | None = None
        self.running: Running | None = None
        self._decision: bytes | None = None
        self._rates: Headers = []
        self._replayed = False
        self.chunks = 0
        self.sending = False
        self.closed = False

    def decided_by(self, running: Running) -> None:
        if running.decision is not None:
            self._decision = running.decision.effect.value.encode()
        if running.rates is not None:
            self._rates = rate_headers(running.rates)
        self._replayed = running.replayed

    def _headers(self, headers: Sequence[tuple[bytes, bytes]]) -> Headers:
        if self.running is not None:
            self.decided_by(self.running)
        full = [*headers, (b"x-request-id", self._request_id), (b"request-id", self._request_id)]
        if self.action_id is not None:
            full.append((b"x-gateway-action", self.action_id.encode()))
        if self._decision is not None:
            full.append((b"x-gateway-decision", self._decision))
        if self._replayed:
            full.append((b"x-gateway-replayed", b"true"))
        full += self._rates
        return full

    async def send(self, status: int, headers: Headers, body: bytes) -> None:
        self._began = True
        headers = self._headers([*headers, (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def head(self, status: int, headers: dict[str, str]) -> None:
        """The stream begins (`Sink.head`)."""
        self._began = True
        full = self._headers(
            [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
            ]
        )
        await self._send({"type": "http.response.start", "status": status, "headers": full})

    async def chunk(self, data: bytes) -> None:
        """A piece of the stream (`Sink.chunk`)."""
        self.sending = True
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self.sending = False
        self.chunks += 1

    async def error(self, refusal: Refusal) -> None:
        """The stream ends with an error (`Sink.error`); clients see that it is not complete."""
        self._failed = True
        await self.chunk(error_event(refusal))

    async def end(self) -> None:
        if self.closed:
            return
        with contextlib.suppress(TimeoutError):  # a client that takes nothing: its connection is closed
            async with asyncio.timeout(END_S):
                await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, refusal: Refusal) -> None:
        if self.closed:
            return
        if self._began:
            await self.chunk(error_event(refusal))
            await self.end()
            return
        await self.send(refusal.http_status, error_headers(refusal), error_body(refusal))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _model_row(model: ModelTarget) -> dict[str, object]:
    return {"id": model.alias, "object": "model", "created": 0, "owned_by": model.owner or model.provider}
