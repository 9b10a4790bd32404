"""A tool server reached over MCP's streamable HTTP, in both of its eras.

Modern (2026-07-28): every request stands alone, headers repeat what the body says. Legacy: a session that the
server opens in the handshake; when the server has lost it (404), a new one is opened and what was refused is sent
again, which is safe since a refused request was not executed. Nothing else is ever sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.actions import Reply
from gateway.errors import Refusal
from gateway.offload import run_sized
from gateway.upstreams import mcp_faults as faults
from gateway.upstreams import mcp_messages as messages
from gateway.upstreams.budget import AnswerBudget, Holding, full
from gateway.upstreams.credential import Credential
from gateway.upstreams.mcp_conversation import Conversation, Outcome, Outgoing
from gateway.upstreams.mcp_messages import Message, NotJsonRpc, RpcError
from gateway.upstreams.outbox import Outbox
from gateway.upstreams.pacing import MOST_PER_CALL, Pace
from gateway.upstreams.sse import SseTooLarge, data_of
from gateway.upstreams.wire import Answer, Headers, Transport, WireError, WireFailed, WireFull, WireTooLarge

_log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_SESSION_BYTES = 1024
_ERROR_CAP_BYTES = 64 * 1024
_SIDE_TIMEOUT_S = 5.0  # for notifications and refusals that nobody waits for
_LISTEN_IDLE_S = 3600.0
_RELISTEN_S = 5.0
PROBE_AFTER_S = (
    10.0  # a session that was silent for longer is asked by `ping` whether it is still there, before a write
)
_PROBE_TIMEOUT_S = 5.0
_NO_SESSION = frozenset((400, 404, 410))  # what servers answer for a session that they do not know
# The HTTP ways to say "I don't know this method", from servers and proxies that never heard of the modern era.
_NOT_MODERN = frozenset((400, 404, 405, 406, 415, 422, 501))


class HttpSpec(NamedTuple):
    """Where a server is. `url` holds no reference any more."""

    server: str
    url: str
    connect_timeout_s: float = 5.0
    probe_after_s: float = 10.0


class HttpServer:
    """One server; `open` it, and again after it was lost."""

    def __init__(
        self,
        spec: HttpSpec,
        *,
        transport: Transport,
        credential: Credential,
        changed: Callable[[], None],
        lost: Callable[[str], None],
        budget: AnswerBudget | None = None,
    ) -> None:
        self._budget = budget or AnswerBudget()
        self._spec = spec
        self._transport = transport
        self._credential = credential
        self._changed = changed
        self._lost = lost
        self._conversation = Conversation(spec.server, self)
        self._version = ""
        self._session: bytes | None = None
        self._next_id = 0
        self._listening: asyncio.Task[None] | None = None
        self._outbox = Outbox(self._post_aside)
        self._pace = Pace()
        self._reopening = asyncio.Lock()
        self._heard_s = 0.0  # when the server last answered, on the loop's clock
        self._doubtful = False  # the session may be gone: something failed since it last answered
        self._not_let_in: int | None = None  # the status (401, 403) with which it refused the credential

    # ------------------------------------------------------------ for the registry

    async def open(self, timeout_s: float) -> None:
        """Agree on a version and listen for changes, where the server tells of them. Raises Refusal."""
        self._session = None
        self._credential.forget()
        await self._conversation.open(timeout_s)
        if self._conversation.tells_of_changes:
            await self._stop_listening()
            self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def list_tools(self, timeout_s: float) -> list[dict[str, Any]]:
        """All definitions, raw. Raises Refusal."""
        tools = await self._conversation.list_tools(timeout_s)
        self._not_let_in = None
        return tools

    async def call(
        self, tool: str, arguments: dict[str, Any], *, meta: dict[str, Any] | None, timeout_s: float, once: bool
    ) -> Reply:
        """Call a tool; with `once` it is sent a second time under no circumstances. Raises Refusal."""
        if self._not_let_in is not None:
            raise faults.not_let_in(self._spec.server, self._not_let_in)
        return await self._conversation.call(tool, arguments, meta=meta, timeout_s=timeout_s, once=once)

    async def aclose(self) -> None:
        """Stop listening, and end the session where there is one."""
        await self._stop_listening()
        await self._outbox.aclose()
        if self._session is not None:
            with contextlib.suppress(WireError, Refusal, TimeoutError):
                async with asyncio.timeout(1.0):
                    answer = await self._send("DELETE", b"", self._headers(None), 1.0)
                    await answer.aclose()
            self._session = None

    # ------------------------------------------------------------ channel

    def agreed(self, version: str) -> None:
        self._version = version

    async def notify(self, method: str) -> None:
        await self._post_aside(messages.request(None, method, None))

    async def exchange(self, outgoing: Outgoing, timeout_s: float) -> Outcome:
        """Send a request and wait for its result. Raises Refusal, RpcError."""
        self._next_id += 1
        rpc_id = self._next_id
        try:
            async with asyncio.timeout(timeout_s):
                if self._reopening.locked() and outgoing.method not in ("initialize", "server/discover"):
                    async with self._reopening:
                        pass  # there is no session to send it with until this is over
                if outgoing.once and self._may_be_gone:
                    await self._probe(timeout_s)
                try:
                    return Outcome(await self._exchange(rpc_id, outgoing, timeout_s), rpc_id)
                except _SessionLost as lost:
                    if outgoing.once:
                        raise
                    await self._reopen(lost.session, timeout_s)
                    return Outcome(await self._exchange(rpc_id, outgoing, timeout_s), rpc_id)
        except _SessionLost as lost:
            self._doubtful = True
            raise faults.session_lost(self._spec.server, lost.status) from None
        except TimeoutError:
            self._doubtful = True
            self._give_up(rpc_id, outgoing)
            raise faults.timed_out(self._spec.server, timeout_s) from None
        except asyncio.CancelledError:
            self._give_up(rpc_id, outgoing)
            raise

    async def _exchange(self, rpc_id: int, outgoing: Outgoing, timeout_s: float) -> bytes:
        body = messages.request(rpc_id, outgoing.method, outgoing.params)
        session = self._session
        try:
            answer = await self._send("POST", body, self._headers(outgoing), timeout_s, resend=not outgoing.once)
        except WireError as fault:
            self._doubtful = True
            if isinstance(fault, WireFailed) and not fault.dispatched:
                self._lost(str(fault))
            raise faults.of_wire(self._spec.server, fault) from None
        # A call's task ends with the call; the task that lists tools lives as long as the connection.
        is_call = outgoing.method == "tools/call"
        holding = self._budget.of_task() if is_call else self._budget.holding()
        self._heard_s, self._doubtful = asyncio.get_running_loop().time(), False
        try:
            message = await self._answer_to(rpc_id, answer, outgoing, session, holding)
        except WireFull:
            raise full(f"The tool server {self._spec.server}", {"server": self._spec.server}) from None
        except WireTooLarge:
            raise faults.failed(self._spec.server, f"its answer is larger than {MAX_ANSWER_BYTES} bytes") from None
        except WireError as fault:
            self._doubtful = True
            raise faults.of_wire(self._spec.server, fault) from None
        finally:
            if not is_call:
                holding.give_back()
            await answer.aclose()
        if outgoing.method == "initialize":
            given = answer.header(b"mcp-session-id")
            if given is not None and (len(given) > MAX_SESSION_BYTES or not given.decode("latin-1").isprintable()):
                raise faults.failed(self._spec.server, "its session id can't be sent back")
            self._session = given
        try:
            return await run_sized(message.size, message.outcome)
        except NotJsonRpc as bad:
            raise faults.failed(self._spec.server, f"it answered with {bad}") from None

    async def _answer_to(
        self, rpc_id: int, answer: Answer, outgoing: Outgoing, session: bytes | None, holding: Holding
    ) -> Message:
        kind = (answer.header(b"content-type") or b"").split(b";")[0].strip().lower()
        if not 200 <= answer.status < 300:
            await self._raise_for(answer, kind, outgoing, session)
        if answer.header(b"content-encoding") not in (None, b"identity"):
            raise faults.failed(self._spec.server, "its answer is compressed, which was not asked for")
        if kind == b"text/event-stream":
            return await self._from_stream(rpc_id, answer, holding)
        if kind != b"application/json":
            raise faults.failed(self._spec.server, "its answer is neither JSON nor an event stream")
        body = await answer.read(MAX_ANSWER_BYTES, holding)
        message = await run_sized(len(body), self._decode, body)
        if not message.is_response or message.id != rpc_id:
            raise faults.failed(self._spec.server, "its answer belongs to another request")
        return message

    async def _raise_for(self, answer: Answer, kind: bytes, outgoing: Outgoing, session: bytes | None) -> None:
        """What a status that is no success means. Raises Refusal, RpcError, _SessionLost."""
        body = await answer.read(_ERROR_CAP_BYTES) if kind == b"application/json" else b""
        if session is not None and answer.status in _NO_SESSION:
            if answer.status == 400 and outgoing.method != "ping":  # or it is about the call, and then says so
                self._doubtful = True
                with contextlib.suppress(NotJsonRpc):
                    messages.decode(body).outcome()
            raise _SessionLost(session, answer.status)
        with contextlib.suppress(NotJsonRpc):
            messages.decode(body).outcome()  # raises what the server says
        if outgoing.method == "server/discover" and answer.status in _NOT_MODERN:
            raise RpcError(messages.METHOD_NOT_FOUND, f"HTTP {answer.status}")
        if answer.status in (401, 403):
            self._credential.forget()
            if outgoing.method in ("tools/call", "ping"):
                self._not_let_in = answer.status
                self._changed()  # have the tools listed again, which shows whether it lets us in
        raise faults.of_status(self._spec.server, answer.status)

    async def _from_stream(self, rpc_id: int, answer: Answer, holding: Holding) -> Message:
        unasked = 0
        try:
            async with contextlib.aclosing(data_of(answer, MAX_ANSWER_BYTES, holding)) as events:
                async for data in events:
                    message = await run_sized(len(data), self._decode, data)
                    if message.is_response and message.id == rpc_id:
                        return message
                    unasked += 1
                    if unasked > MOST_PER_CALL:
                        raise faults.failed(
                            self._spec.server, f"it sent more than {MOST_PER_CALL} messages before its answer"
                        )
                    await self._incoming(message)
        except SseTooLarge:
            raise faults.failed(self._spec.server, f"its answer is larger than {MAX_ANSWER_BYTES} bytes") from None
        raise faults.failed(self._spec.server, "its stream ended before the answer came")

    def _decode(self, raw: bytes) -> Message:
        try:
            return messages.decode(raw)
        except NotJsonRpc as bad:
            raise faults.failed(self._spec.server, f"it answered with something that is {bad}") from None

    async def _incoming(self, message: Message) -> None:
        """What the server says of its own accord."""
        await self._pace.wait()
        if message.is_response:
            _log.debug("tool server %s answered a request that nobody waits for", self._spec.server)
        elif message.id is not None:
            self._outbox.reply(messages.answer_to(message))
        elif message.method == "notifications/tools/list_changed":
            self._changed()

    # ------------------------------------------------------------ beside the calls

    @property
    def _may_be_gone(self) -> bool:
        """Whether the session was idle, or something failed on it: a server may have dropped it meanwhile."""
        if self._session is None:
            return False
        return self._doubtful or asyncio.get_running_loop().time() - self._heard_s >= self._spec.probe_after_s

    async def _probe(self, timeout_s: float) -> None:
        """Ask whether the session is there, and open another if not. Raises Refusal: then the call was not sent."""
        try:
            await self.exchange(Outgoing("ping", {}), min(timeout_s / 2, _PROBE_TIMEOUT_S))
        except RpcError:
            pass  # a server that does not know `ping` answered all the same
        except Refusal as refusal:
            if self._doubtful or self._not_let_in is not None:
                refusal.detail["dispatched"] = "no"
                raise

    async def _reopen(self, session: bytes, timeout_s: float) -> None:
        """A new session in place of a lost one; of many calls that find it lost, one opens it."""
        async with self._reopening:
            if self._session == session:
                self._session = None
                await self._conversation.open(timeout_s)
                self._changed()  # a server that restarted may offer other tools

    def _give_up(self, rpc_id: int, outgoing: Outgoing) -> None:
        """Tell a legacy server that nobody waits any more; a modern one saw the stream close."""
        if self._version != messages.MODERN and outgoing.method != "initialize":
            params = {"requestId": rpc_id, "reason": "The caller no longer waits."}
            self._outbox.notice(messages.request(None, "notifications/cancelled", params))

    async def _listen(self) -> None:
        """Hear of changed tools: a stream that the server keeps open; reopened when it ends."""
        while True:
            self._next_id += 1
            params = {"notifications": {"toolsListChanged": True}, "_meta": messages.meta(None, modern=True)}
            listen = Outgoing("subscriptions/listen", params)
            modern = self._conversation.modern
            body = messages.request(self._next_id, listen.method, params) if modern else b""
            headers = self._headers(listen if modern else None)
            method = "POST" if modern else "GET"
            try:
                answer = await self._send(method, body, headers, _LISTEN_IDLE_S, resend=True, idle_s=_LISTEN_IDLE_S)
                try:
                    if answer.status in (400, 404, 405, 406, 501):
                        return  # it offers no such stream
                    if answer.status == 200:
                        await self._hear(answer)
                finally:
                    await answer.aclose()
            except WireError as fault:
                if isinstance(fault, WireFailed) and not fault.dispatched:
                    self._lost(str(fault))
                    return
            except Refusal:
                return  # the credential can't be read; calls say so
            await asyncio.sleep(_RELISTEN_S)

    async def _hear(self, answer: Answer) -> None:
        with contextlib.suppress(SseTooLarge, NotJsonRpc):
            async with contextlib.aclosing(data_of(answer, _ERROR_CAP_BYTES)) as events:
                async for data in events:
                    await self._incoming(messages.decode(data))

    async def _stop_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _post_aside(self, body: bytes) -> None:
        """Post what has no answer. Raises nothing: nobody depends on it."""
        try:
            answer = await self._send("POST", body, self._headers(None), _SIDE_TIMEOUT_S)
            await answer.aclose()
        except (WireError, Refusal) as fault:
            _log.debug("tool server %s could not be told: %s", self._spec.server, fault)

    def _headers(self, outgoing: Outgoing | None) -> Headers:
        headers: Headers = [
            (b"content-type", b"application/json"),
            (b"accept", b"application/json, text/event-stream"),
        ]
        secret = self._credential.value()
        if secret is not None:
            headers.append((b"authorization", b"Bearer " + secret.encode("ascii")))
        if self._version:
            headers.append((b"mcp-protocol-version", self._version.encode("ascii")))
        if self._session is not None:
            headers.append((b"mcp-session-id", self._session))
        trace = None if outgoing is None else outgoing.params.get("_meta", {}).get("traceparent")
        if trace is not None:
            headers.append((b"traceparent", trace.encode("ascii")))
        if outgoing is not None and self._version == messages.MODERN:
            headers.append((b"mcp-method", outgoing.method.encode("ascii")))
            if outgoing.name is not None:
                headers.append((b"mcp-name", messages.header_value(outgoing.name)))
            headers += outgoing.mirrored
        return headers

    async def _send(
        self,
        method: str,
        body: bytes,
        headers: Headers,
        timeout_s: float,
        *,
        resend: bool = False,
        idle_s: float | None = None,
    ) -> Answer:
        return await self._transport.request(
            method,
            self._spec.url,
            headers,
            body,
            connect_timeout_s=min(self._spec.connect_timeout_s, timeout_s),
            first_byte_timeout_s=timeout_s + 1.0,  # the caller's own time-out comes first
            idle_timeout_s=timeout_s + 1.0 if idle_s is None else idle_s,
            resend=resend,
        )


class _SessionLost(Exception):  # noqa: N818 - caught in this module
    def __init__(self, session: bytes, status: int) -> None:
        super().__init__("session lost")
        self.session = session
        self.status = status
