"""One HTTP answer of the door: plain JSON, or server-sent events: one for a client that takes nothing else, several
where a call waits for a person and its client wants to be told."""

from __future__ import annotations

from gateway.actions import Decision
from gateway.doors.desk import Send
from gateway.doors.mcp import results
from gateway.doors.mcp.protocol import INVALID_PARAMS, METHOD_NOT_FOUND, Fault
from gateway.errors import Refusal

_JSON = (b"content-type", b"application/json")
_SSE = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)

Headers = list[tuple[bytes, bytes]]


class Answer:
    """Collects what is known of a request while it is read, and sends exactly one response."""

    __slots__ = (
        "_request_id",
        "_send",
        "_told",
        "action_id",
        "decision",
        "modern",
        "replayed",
        "rpc_id",
        "sent",
        "sse",
    )

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self.rpc_id = b"null"
        self.action_id: str | None = None
        self.decision: Decision | None = None
        self.replayed = False
        self.modern = False
        self.sse = False
        self.sent = False
        self._told = 0  # progress that was sent; the head is out then

    async def result(self, body: bytes, headers: Headers | None = None) -> None:
        """A JSON-RPC result; `body` is its JSON text."""
        await self._message(200, results.result(self.rpc_id, body), headers)

    async def progress(self, token: str | int, message: str) -> None:
        """`notifications/progress`; the first one begins the response, as a stream of events."""
        if self._told == 0:
            self.sent = True
            await self._send({"type": "http.response.start", "status": 200, "headers": [*self._ours([]), *_SSE]})
        self._told += 1
        body = _event(results.progress(token, self._told, message))
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def refused_call(self, refusal: Refusal) -> None:
        """A refused tool call that the model is told of."""
        body = results.refused_call(refusal, self.action_id, modern=self.modern)
        await self.result(body, _retry_after(refusal))

    async def refusal(self, refusal: Refusal) -> None:
        """A refusal as a JSON-RPC error, under its own HTTP status."""
        headers = _retry_after(refusal)
        if refusal.http_status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        body = results.refusal_error(self.rpc_id, refusal, self.action_id)
        await self._message(refusal.http_status, body, headers)

    async def unknown_tool(self, name: str) -> None:
        """The one answer for a tool that doesn't exist and for one that the agent may not know of."""
        self.decision = None
        await self.fault(Fault(INVALID_PARAMS, f"Unknown tool: {name}"))

    async def fault(self, fault: Fault) -> None:
        """A protocol error. Clients of the older revisions read errors of well-formed requests only under 200."""
        if fault.rpc_id is not None:
            self.rpc_id = fault.rpc_id
        status = fault.http_status
        if not self.modern and fault.rpc_code in (INVALID_PARAMS, METHOD_NOT_FOUND) and self.rpc_id != b"null":
            status = 200
        headers: Headers = [(b"allow", b"POST, DELETE")] if status == 405 else []
        body = results.error(self.rpc_id, fault.rpc_code, fault.message, fault.data)
        await self._message(status, body, headers)

    async def empty(self, status: int) -> None:
        """A response without a body."""
        await self._respond(status, self._ours([(b"content-length", b"0")]), b"")

    async def _message(self, status: int, body: bytes, headers: Headers | None) -> None:
        if self._told:  # the head is out, and said 200
            await self._send({"type": "http.response.body", "body": _event(body)})
            return
        full = self._ours(headers or [])
        if self.sse and status == 200:
            body = _event(body)
            full.extend(_SSE)
        else:
            full.append(_JSON)
        full.append((b"content-length", b"%d" % len(body)))
        await self._respond(status, full, body)

    def _ours(self, headers: Headers) -> Headers:
        headers.append((b"x-request-id", self._request_id))
        headers.append((b"request-id", self._request_id))
        if self.action_id is not None:
            headers.append((b"x-gateway-action", self.action_id.encode()))
        told = None if self.decision is None else self.decision.as_told
        if told is not None:
            headers.append((b"x-gateway-decision", told.effect.value.encode()))
        if self.replayed:
            headers.append((b"x-gateway-replayed", b"true"))
        return headers

    async def _respond(self, status: int, headers: Headers, body: bytes) -> None:
        self.sent = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


_BREAKS_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")


def _event(body: bytes) -> bytes:
    """A JSON-RPC message as one event. A line break inside JSON is white space, but ends a line of an event.

    Breaks become spaces in one pass: 16 MiB can hold millions of them.
    """
    return b"event: message\ndata: %b\n\n" % body.translate(_BREAKS_TO_SPACES)


def _retry_after(refusal: Refusal) -> Headers:
    if refusal.retry_after_s is None:
        return []
    return [(b"retry-after", b"%d" % refusal.retry_after_s)]
