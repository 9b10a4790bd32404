"""A small house around the door: the real governor, identity and desk; rooms that do what a table says."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import orjson
import rfc8785
import uvicorn
from prometheus_client import CollectorRegistry

from gateway.actions import (
    Action,
    Agent,
    AgentStatus,
    Caller,
    Cost,
    Decision,
    Effect,
    Kind,
    ModelTarget,
    Reply,
    ReplyStream,
    Reservation,
    Result,
    Target,
    ToolTarget,
)
from gateway.clock import Ids, SystemClock
from gateway.doors.desk import Desk, Message, Scope
from gateway.doors.mcp import Ladder, McpDoor, Origins, Sessions
from gateway.doors.mcp.governs import Governs
from gateway.doors.mcp.waiting import SHIPPED
from gateway.errors import Refusal
from gateway.govern import Governor
from gateway.identity.identify import Identity
from gateway.limits.admission import MemoryAdmission
from gateway.proposals import Proposal
from gateway.store.interface import Connection
from gateway.telemetry import Metrics, Observer, trace_parser

KEY = "test-key-of-the-reader"
OTHER_KEY = "test-key-of-another"

Perform = Callable[[Action], Awaitable[bytes]]


async def echo(action: Action) -> bytes:
    """A tool that says what it was called with."""
    text = orjson.dumps(action.arguments).decode()
    return orjson.dumps({"content": [{"type": "text", "text": text}], "structuredContent": action.arguments})


def tool(server: str, name: str, *, effect: str = "read", **definition: Any) -> ToolTarget:
    """A registered tool; `definition` is added to what its server says of it."""
    raw = {"name": name, "description": f"{name} of {server}", "inputSchema": {"type": "object"}, **definition}
    return ToolTarget(server=server, tool=name, server_kind="mcp", owner="o", risk="low", effect=effect, definition=raw)


class Rooms:
    """Catalog, limits, guards, policy, audit, upstreams and telemetry, each as its table says."""

    def __init__(self) -> None:
        self.known: dict[str, ToolTarget] = {}
        self.decisions: dict[str, Decision] = {}
        self.faults: dict[str, Exception] = {}  # by step: admit, inspect, reserve, intent
        self.performs: dict[str, Perform] = {}
        self.performed: list[Action] = []
        self.refusals: list[tuple[Action, Refusal]] = []
        self.listings: list[Action] = []
        self.results: list[tuple[Action, Result]] = []
        self.strangers = 0
        self.agent_status = AgentStatus.ACTIVE
        self.latched = False

    def add(self, target: ToolTarget, perform: Perform = echo, *, decision: Decision | None = None) -> ToolTarget:
        self.known[target.id] = target
        self.performs[target.id] = perform
        if decision is not None:
            self.decisions[target.id] = decision
        return target

    def _step(self, name: str) -> None:
        if name in self.faults:
            raise self.faults[name]

    # catalog
    def target(self, action: Action) -> Target:
        found = self.known.get(action.target)
        if found is None:
            raise Refusal("unknown_tool", f"Unknown tool: {action.target}")
        return found

    def executable(self, _: Proposal) -> ToolTarget | None:
        return None

    def client_tool(self, _: str) -> ToolTarget | None:
        return None

    def tools(self, server: str | None = None) -> tuple[ToolTarget, ...]:
        return tuple(each for each in self.known.values() if server in (None, each.server))

    def server_known(self, name: str) -> bool:
        return any(each.server == name for each in self.known.values())

    def models(self) -> tuple[ModelTarget, ...]:
        return ()

    # limits
    async def admit(self, _: Action) -> MemoryAdmission:
        self._step("admit")
        return MemoryAdmission((), SystemClock())

    async def reserve(self, action: Action, _: Target) -> Reservation:
        self._step("reserve")
        return Reservation(id=action.id, nanousd=0, tokens=0, levels=())

    def settle(self, _: Reservation, __: Cost) -> Callable[[Connection], None]:
        return lambda _: None

    # guards
    def inspect_input(self, _: Action, __: Target) -> tuple[str, ...]:
        self._step("inspect")
        return ("schema",)

    def inspect_proposal(self, arguments: dict[str, Any], declared: dict[str, Any] | None, target: ToolTarget) -> None:
        return None

    # policy
    async def decide(self, action: Action, target: Target, *, approval: object = None) -> Decision:
        decision = self.decisions.get(target.id, Decision(effect=Effect.ALLOW, rules=("allow_all",)))
        if action.kind is Kind.TOOL_LIST and not decision.hidden:
            return Decision(effect=Effect.ALLOW)
        return decision

    # audit
    async def intent(
        self,
        _: Action,
        __: Target,
        ___: Decision,
        ____: Reservation,
        _____: tuple[str, ...],
        *,
        also: object = None,
        case: str | None = None,
    ) -> None:
        self._step("intent")

    def result(
        self, action: Action, _: Target, __: Decision, result: Result, ___: Callable[[Connection], None]
    ) -> None:
        self.results.append((action, result))

    def refused(self, action: Action, _: Target | None, __: Decision | None, refusal: Refusal) -> None:
        if self.latched:
            raise Refusal("audit_unavailable", "The audit log is latched; restart the gateway.")
        self.refusals.append((action, refusal))

    def unauthenticated(self) -> None:
        self.strangers += 1

    async def ended(
        self, _: Action, __: Target, ___: Decision, ____: Result, _____: Callable[[Connection], None], case: str
    ) -> None:
        raise NotImplementedError

    async def lost(
        self, _: Action, __: Target, ___: Decision, ____: Result, _____: Callable[[Connection], str | None]
    ) -> None:
        raise NotImplementedError

    async def elsewhere(self, _: str, __: float) -> None:
        return None

    async def decided(
        self,
        _: Sequence[tuple[Action, Target | None, Decision]],
        *,
        case: str | None = None,
        replayed: bool = False,
        joined: str | None = None,
    ) -> None:
        return None

    def listed(self, action: Action, _: Sequence[tuple[ToolTarget | ModelTarget, Decision]]) -> None:
        self.listings.append(action)

    # upstreams
    async def perform(self, action: Action, target: Target, _: bytes | None, __: str) -> Reply | ReplyStream:
        self.performed.append(action)
        return Reply(body=await self.performs[target.id](action))

    def drain_s(self, _: Target) -> float:
        return 0.0


class NoCases:
    """A house where nobody waits: what does, is tested with a scripted governor or a whole gateway."""

    def concerns(self, _: Action) -> bool:
        return False

    def has_answer(self, _: str) -> bool:
        return False

    def stop_waiting(self) -> None:
        return None


def digest(tenant: str, agent: str, user: str | None, target: str, arguments: dict[str, Any]) -> str:
    try:
        plain = rfc8785.dumps([tenant, agent, user, target, arguments])
    except rfc8785.CanonicalizationError as error:
        raise Refusal("malformed", "The arguments hold a number that JSON can't carry exactly.") from error
    return hmac.digest(b"tenant", plain, "sha256").hex()


class House:
    """The door and everything behind it."""

    def __init__(
        self, origins: Origins | None = None, governor: Governs | None = None, ladder: Ladder = SHIPPED
    ) -> None:
        """`governor`: whom the door asks in place of the real one."""
        clock = SystemClock()
        ids = Ids(clock)
        agent = Agent(id="reader")
        identity = Identity(clock, ids.new)
        for key, name in ((KEY, "credential-1"), (OTHER_KEY, "credential-2")):
            identity.bind(hashlib.sha256(key.encode()).hexdigest(), Caller(agent, None, name, "key"), None)
        parse_trace = trace_parser(os.urandom)
        self.rooms = rooms = Rooms()
        self.desk = Desk(
            identity=identity,
            find_session=identity.session,
            parse_trace=parse_trace,
            digest=digest,
            clock=clock,
            ids=ids,
            max_body_bytes=1_000_000,
        )
        self.governor = Governor(
            catalog=rooms,
            limits=rooms,
            guards=rooms,
            policy=rooms,
            audit=rooms,
            upstreams=rooms,
            dialects={},
            agent=lambda _: Agent(id="reader", status=rooms.agent_status),
            observe=Observer(Metrics(CollectorRegistry()), clock),
            clock=clock,
            new_id=ids.new,
            digest=lambda _: "",
            approvals=cast("Any", NoCases()),
            hold_s=lambda: 45.0,
            saw=lambda _: None,
        )

        def definition(target: str) -> dict[str, Any] | None:
            found = rooms.known.get(target)
            return None if found is None else found.definition

        self.door = McpDoor(
            self.desk,
            self.governor if governor is None else governor,
            sessions=Sessions(b"k" * 32),
            origins=origins or Origins(bound_host="127.0.0.1"),
            definition=definition,
            parse_trace=parse_trace,
            version="0",
            ladder=ladder,
        )

    @property
    def codes(self) -> list[str]:
        """The codes of the refusals recorded so far."""
        return [refusal.code for _, refusal in self.rooms.refusals]

    async def send(
        self,
        body: bytes | dict[str, Any] | list[Any],
        *,
        path: str = "/mcp",
        method: str = "POST",
        headers: Mapping[str, str | None] | None = None,
        more: Sequence[tuple[str, str]] = (),
        session: str | None = None,
        gone: asyncio.Event | None = None,
    ) -> Response:
        """One request through the door. A header set to None is left out; `more` adds lines as they are; the client
        hangs up when `gone` is set."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        lines: dict[str, str | None] = {
            "host": "127.0.0.1:8080",
            "authorization": f"Bearer {KEY}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            **(headers or {}),
        }
        sent = [(name, value) for name, value in lines.items() if value is not None] + list(more)
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent],
        }
        if session is not None:
            scope["gateway.session"] = session
        got: list[Message] = []
        bodies = [raw]
        hung_up = gone or asyncio.Event()

        async def receive() -> Message:
            if bodies:
                return {"type": "http.request", "body": bodies.pop(), "more_body": False}
            await hung_up.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            got.append(message)

        await self.door(scope, receive, send)
        if hung_up.is_set() and not got:
            return Response(0, {}, b"")
        assert [message["type"] for message in got] == ["http.response.start", *["http.response.body"] * (len(got) - 1)]
        assert [bool(message.get("more_body")) for message in got[1:]] == [True] * (len(got) - 2) + [False]
        body = b"".join(message["body"] for message in got[1:])
        return Response(got[0]["status"], {k.decode(): v.decode() for k, v in got[0]["headers"]}, body)

    async def modern(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        path: str = "/mcp",
        headers: Mapping[str, str | None] | None = None,
        more: Sequence[tuple[str, str]] = (),
        gone: asyncio.Event | None = None,
    ) -> Response:
        """A well-formed request of revision 2026-07-28, unless `headers` and `params` make it otherwise."""
        version = "2026-07-28"
        meta: dict[str, Any] = {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = dict(params or {})
        params["_meta"] = meta | params.get("_meta", {})
        mirrored: dict[str, str | None] = {"mcp-protocol-version": version, "mcp-method": method}
        if method == "tools/call" and isinstance(params.get("name"), str):
            mirrored["mcp-name"] = params["name"]
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return await self.send(body, path=path, headers={**mirrored, **(headers or {})}, more=more, gone=gone)

    async def legacy(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        path: str = "/mcp",
        headers: Mapping[str, str | None] | None = None,
        gone: asyncio.Event | None = None,
    ) -> Response:
        """A request of revision 2025-11-25."""
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method}
        if params is not None:
            body["params"] = params
        return await self.send(
            body, path=path, headers={"mcp-protocol-version": "2025-11-25", **(headers or {})}, gone=gone
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """The door behind a real server on a free port; gives its base URL."""
        config = uvicorn.Config(self.door, host="127.0.0.1", port=0, lifespan="off", log_level="error")
        server = uvicorn.Server(config)
        socket = config.bind_socket()
        task = asyncio.create_task(server.serve(sockets=[socket]))
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
            socket.close()


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def result(self) -> Any:
        assert "result" in self.json, self.json
        return self.json["result"]

    @property
    def error(self) -> Any:
        assert "error" in self.json, self.json
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        """The messages of a stream."""
        assert self.headers["content-type"] == "text/event-stream"
        return [orjson.loads(each.removeprefix(b"event: message\ndata: ")) for each in self.body.split(b"\n\n") if each]

    @property
    def text(self) -> str:
        """What a refused call tells the model."""
        assert self.result["isError"] is True
        text: str = self.result["content"][0]["text"]
        return text
