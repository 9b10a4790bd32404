"""The front desk of every hot door: who comes in, under which session, with what body.

Pure ASGI, no framework: this runs on every governed call. Refuses with `unauthenticated`, `too_large`,
`malformed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple, Protocol

from gateway.actions import Action, Caller, Claimed, Kind, ParsesTrace, Rpc, Session, Trace
from gateway.clock import Clock, Ids
from gateway.errors import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WRONG_HOST = "gateway.wrong_host"
"""In a scope: the refusal of a request that was not sent to this gateway; each door renders it in its dialect."""

MAX_CLAIM_LENGTH = 256
MAX_IDEMPOTENCY_KEY_LENGTH = 255
# A client that is sending too much is let finish up to this many times the limit, so that it reads our answer
# instead of a broken pipe.
DRAIN_FACTOR = 4
# How long a client may send nothing in the middle of its request, in seconds.
BODY_IDLE_S = 30.0
# How long the whole body may take, in seconds.
BODY_S = 120.0
# How much of bodies that are not complete yet is held: of all agents, and of one.
UNFINISHED_BYTES = 512 * 1024 * 1024
UNFINISHED_BYTES_PER_AGENT = 128 * 1024 * 1024


LooksAgain = Callable[[], Awaitable[bool]]
Headers = Iterable[tuple[bytes, bytes]]


class Identifies(Protocol):
    def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller: ...


class FindsSession(Protocol):
    def __call__(
        self, headers: dict[bytes, bytes], path_session: str | None, trace_id: str | None, caller: Caller
    ) -> Session: ...


class Intake(NamedTuple):
    """What is known of a request before its body is read."""

    caller: Caller
    session: Session
    trace: Trace
    claimed: Claimed
    request_id: str
    received_ns: int
    idempotency_key: str | None
    headers: dict[bytes, bytes]
    fault: Refusal | None = None  # a header that can't be taken; the door refuses, and records who it was


class Desk:
    """Identifies callers, reads bodies, makes actions."""

    def __init__(
        self,
        *,
        identity: Identifies,
        find_session: FindsSession,
        parse_trace: ParsesTrace,
        digest: Callable[[str, str, str | None, str, dict[str, Any]], str],
        clock: Clock,
        ids: Ids,
        max_body_bytes: int,
        body_idle_s: float = BODY_IDLE_S,
        body_s: float = BODY_S,
        unfinished_bytes: int = UNFINISHED_BYTES,
        unfinished_bytes_per_agent: int = UNFINISHED_BYTES_PER_AGENT,
        look_again: LooksAgain | None = None,
    ) -> None:
        """`look_again`: whether other replicas changed something that this one had not seen."""
        self._identity = identity
        self._find_session = find_session
        self._parse_trace = parse_trace
        self._digest = digest
        self._clock = clock
        self._ids = ids
        self._look_again = look_again
        self.max_body_bytes = max_body_bytes
        self._body_idle_s = body_idle_s
        self._body_s = body_s
        self._unfinished = Unfinished(unfinished_bytes, unfinished_bytes_per_agent)

    def request_id(self) -> str:
        return self._ids.new()

    async def identify(self, headers: Headers) -> Caller:
        """The caller that a request's credential proves. Raises `unauthenticated`.

        A key that another replica made a moment ago is looked for before it is refused; where nobody can tell, that
        is `store_unavailable` and not the caller's fault.
        """
        try:
            return self._identity.identify(headers)
        except Refusal:
            if self._look_again is None or not await self._look_again():
                raise
            return self._identity.identify(headers)

    async def admit(self, scope: Scope, request_id: str) -> Intake:
        """Identify the caller of `scope`. Raises `unauthenticated`; a `malformed` header is told in `Intake.fault`."""
        raw = scope["headers"]
        received_ns = self._clock.now_ns()
        caller = await self.identify(raw)
        headers: dict[bytes, bytes] = dict(raw)
        traceparent = headers.get(b"traceparent")
        trace = self._parse_trace(traceparent, headers.get(b"tracestate"))
        claimed, key, fault = Claimed(), None, None
        try:
            session = self._find_session(
                headers, scope.get("gateway.session"), trace.trace_id if traceparent else None, caller
            )
            claimed = Claimed(
                session=_text(headers.get(b"x-gateway-session"), "x-gateway-session", MAX_CLAIM_LENGTH),
                purpose=_text(headers.get(b"x-gateway-purpose"), "x-gateway-purpose", MAX_CLAIM_LENGTH),
            )
            key = _text(headers.get(b"idempotency-key"), "idempotency-key", MAX_IDEMPOTENCY_KEY_LENGTH)
        except Refusal as refusal:
            session, fault = Session(self._ids.new(), "minted"), refusal
        return Intake(
            caller=caller,
            session=session,
            trace=trace,
            claimed=claimed,
            request_id=request_id,
            received_ns=received_ns,
            idempotency_key=key,
            headers=headers,
            fault=fault,
        )

    def action(
        self,
        intake: Intake,
        *,
        kind: Kind,
        door: str,
        target: str,
        arguments: dict[str, Any],
        identity_arguments: dict[str, Any] | None = None,
        body: bytes | None = None,
        stream: bool = False,
        parent: str | None = None,
        rpc: Rpc | None = None,
    ) -> Action:
        """Make the action that `intake` asks for; `identity_arguments` (default: `arguments`) enter its digest."""
        caller = intake.caller
        return Action(
            id=self._ids.new(),
            kind=kind,
            door=door,
            caller=caller,
            session=intake.session,
            trace=intake.trace,
            target=target,
            request_id=intake.request_id,
            received_ns=intake.received_ns,
            rpc=rpc,
            arguments=arguments,
            body=body,
            stream=stream,
            claimed=intake.claimed,
            parent=parent,
            idempotency_key=intake.idempotency_key,
            digest=self._digest(
                caller.agent.tenant,
                caller.agent.id,
                caller.user,
                target,
                arguments if identity_arguments is None else identity_arguments,
            ),
        )

    async def body(self, scope: Scope, receive: Receive, limit_bytes: int | None = None, agent_id: str = "") -> bytes:
        """Read the whole body. Raises `too_large` (after draining a bounded rest), `malformed`, `rate_limited`.

        At most `limit_bytes` (default: the limit of all bodies); `agent_id` says whose it is. A client that sends
        nothing for `body_idle_s` seconds in the middle of it, or is not done in `body_s`, is refused with 408.
        """
        limit = self.max_body_bytes if limit_bytes is None else min(limit_bytes, self.max_body_bytes)
        encoding = None
        for name, value in scope["headers"]:
            if name == b"content-encoding":
                encoding = value.lower()
        parts: list[bytes] = []
        size = 0
        held = 0
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._body_s
        try:
            async with asyncio.timeout(min(self._body_idle_s, self._body_s)) as patience:
                while True:
                    message = await receive()
                    chunk: bytes = message.get("body", b"")
                    size += len(chunk)
                    if size <= limit:
                        parts.append(chunk)
                    if not message.get("more_body") or size > limit * DRAIN_FACTOR:
                        break
                    if size <= limit:
                        self._unfinished.add(agent_id, len(chunk))
                        held += len(chunk)
                    patience.reschedule(min(loop.time() + self._body_idle_s, end_s))
        except TimeoutError:
            raise Refusal(
                "malformed",
                f"Nothing more of the request came for {self._body_idle_s:g} s, or it was not complete after"
                f" {self._body_s:g} s; send it again, whole.",
                http_status=408,
            ) from None
        finally:
            if held:
                self._unfinished.remove(agent_id, held)
        if message["type"] == "http.disconnect":
            raise Refusal(
                "malformed",
                "The client closed the connection before its request was complete; send it again.",
            )
        if size > limit:
            hint = ", or raise server.max_body_bytes" if limit == self.max_body_bytes else " at once"
            raise Refusal(
                "too_large",
                f"The request body is larger than {limit} bytes; send less{hint}.",
            )
        if encoding not in (None, b"identity"):
            raise Refusal(
                "malformed",
                "The request body has a content-encoding, which the gateway does not unpack; send it plain.",
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Unfinished:
    """How many bytes are held of bodies whose rest is still to come."""

    def __init__(self, most: int, most_per_agent: int) -> None:
        self._most = most
        self._most_per_agent = most_per_agent
        self._all = 0
        self._agents: dict[str, int] = {}

    def add(self, agent_id: str, size: int) -> None:
        """Count `size` bytes more. Raises `rate_limited` where that is too much; then they are not counted."""
        of_agent = self._agents.get(agent_id, 0) + size
        if of_agent > self._most_per_agent:
            raise Refusal(
                "rate_limited",
                "This agent is sending too many large requests at once; send fewer of them at a time.",
                retry_after_s=5,
            )
        if self._all + size > self._most:
            raise Refusal(
                "rate_limited",
                "The gateway is being sent as much as it can hold; try again in a moment.",
                retry_after_s=5,
                http_status=503,
            )
        self._agents[agent_id] = of_agent
        self._all += size

    def remove(self, agent_id: str, size: int) -> None:
        """What `add` counted is held no more."""
        self._all -= size
        left = self._agents[agent_id] - size
        if left:
            self._agents[agent_id] = left
        else:
            del self._agents[agent_id]


def _text(value: bytes | None, name: str, limit: int) -> str | None:
    if value is None:
        return None
    if len(value) > limit or not value.isascii() or not value.decode("ascii").isprintable():
        raise Refusal("malformed", f"The header {name} must be at most {limit} printable ASCII characters.")
    return value.decode("ascii")
