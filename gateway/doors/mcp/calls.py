"""`tools/call` and `tools/list`: what a message asks for becomes an action, and its end an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from gateway.actions import Action, Caller, Decision, Kind, Reply, ToolTarget, Trace
from gateway.doors.desk import Desk, Intake
from gateway.doors.mcp import envelope, results
from gateway.doors.mcp.answer import Answer
from gateway.doors.mcp.head import Head
from gateway.doors.mcp.message import Message
from gateway.doors.mcp.mirrors import Mirrors, difference
from gateway.doors.mcp.protocol import INVALID_PARAMS, Fault, shown
from gateway.errors import Refusal

DOOR = "mcp"
MAX_NAME_CHARS = 256  # of `server__tool`; no registered tool comes near it
_OF_THIS_LEG = frozenset({"progressToken", "traceparent", "tracestate", "baggage"})
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class InFlight(Protocol):
    """An action on its way."""

    decision: Decision | None

    async def reply(self) -> Reply | None: ...


class Governs(Protocol):
    """What this door asks of the governor."""

    def start(self, action: Action) -> InFlight: ...
    async def list_tools(self, action: Action) -> tuple[ToolTarget, ...]: ...
    def refuse(self, action: Action, refusal: Refusal) -> None: ...
    def unauthenticated(self) -> None: ...
    def server_known(self, name: str, caller: Caller) -> bool: ...


class Request(NamedTuple):
    """A message, and everything around it that matters to an answer."""

    message: Message
    head: Head
    intake: Intake
    server: str | None  # None: the endpoint of all servers
    answer: Answer


class Calls:
    """Runs the two governed methods."""

    def __init__(
        self,
        desk: Desk,
        governor: Governs,
        *,
        definition: Callable[[str], Mapping[str, Any] | None],
        parse_trace: Callable[[bytes | None], Trace],
        server_info: dict[str, str],
    ) -> None:
        self._desk = desk
        self._governor = governor
        self._mirrors = Mirrors(definition)
        self._parse_trace = parse_trace
        self._server_info = server_info

    async def list_tools(self, request: Request) -> None:
        """`tools/list`: one page with all that the agent may see."""
        if request.message.params.get("cursor") is not None:
            raise Fault(INVALID_PARAMS, "Invalid params: the list has one page, so there is no such cursor.")
        answer = request.answer
        listing = self._listing(request)
        answer.action_id = listing.id
        try:
            tools = await self._governor.list_tools(listing)
        except Refusal as refusal:  # the governor has recorded it
            await answer.refusal(refusal)
            return
        named = request.server is None
        await answer.result(results.tool_list(tools, self._server_info, named=named, modern=answer.modern))

    async def call(self, request: Request) -> None:
        """`tools/call`: decided, performed and recorded by the governor; refusals a model can use are results."""
        message, answer = request.message, request.answer
        name, arguments = _named_call(message.params)
        target = name if request.server is None else f"{request.server}__{name}"
        try:
            action = self._action(request, target, arguments)
        except Refusal as refusal:
            blank = self._desk.action(request.intake, kind=Kind.TOOL_CALL, door=DOOR, target=target, arguments={})
            self._governor.refuse(blank, refusal)
            answer.action_id = blank.id
            await answer.refused_call(refusal)
            return
        answer.action_id = action.id
        if answer.modern and not await self._mirrors_agree(request, name, action):
            return
        running = self._governor.start(action)
        try:
            reply = await running.reply()
            body = results.passed_on(b"{}" if reply is None else reply.body, modern=answer.modern)
        except Refusal as refusal:
            if refusal.code == "unknown_tool":
                await answer.unknown_tool(name)
                return
            answer.decision = running.decision
            if refusal.code in results.TOLD_TO_THE_MODEL:
                await answer.refused_call(refusal)
            else:
                await answer.refusal(refusal)
            return
        answer.decision = running.decision
        await answer.result(body)

    def _action(self, request: Request, target: str, arguments: dict[str, Any]) -> Action:
        message, intake = request.message, request.intake
        if message.inexact is not None:
            raise Refusal(
                "malformed",
                f"The number {shown(message.inexact)} can't be passed on exactly; send it with at most 15"
                " significant digits, or as a string if the tool takes one.",
            )
        trace = message.meta.get("traceparent")
        if isinstance(trace, str) and _TRACEPARENT.fullmatch(trace) is not None:
            intake = intake._replace(trace=self._parse_trace(trace.encode()))
        return self._desk.action(
            intake,
            kind=Kind.TOOL_CALL,
            door=DOOR,
            target=target,
            arguments=arguments,
            body=_vendor_meta(message.meta) if message.meta else None,
        )

    async def _mirrors_agree(self, request: Request, name: str, action: Action) -> bool:
        """Whether the headers repeat what the arguments say; if not, the answer is given.

        Telling of a difference tells that the tool exists, so an agent that may not see it hears what it would
        hear of any tool that doesn't exist.
        """
        mirrors = self._mirrors.of(action.target)
        what = difference(mirrors, action.arguments, request.head) if mirrors else None
        if what is None:
            return True
        answer = request.answer
        try:
            seen = await self._governor.list_tools(self._listing(request))
        except Refusal as refusal:
            await answer.refusal(refusal)
            return False
        if any(tool.id == action.target for tool in seen):
            fault = envelope.mismatch(what)
            self._governor.refuse(action, Refusal("malformed", fault.message))
            await answer.fault(fault)
        else:
            self._governor.refuse(action, Refusal("unknown_tool", f"Unknown tool: {name}"))
            await answer.unknown_tool(name)
        return False

    def _listing(self, request: Request) -> Action:
        target = request.server or "*"
        return self._desk.action(request.intake, kind=Kind.TOOL_LIST, door=DOOR, target=target, arguments={})


def _vendor_meta(meta: dict[str, Any]) -> bytes | None:
    """What else the client attached for the tool, as `{"_meta": {...}}`. What the protocol, the gateway and tracing
    say for themselves on each leg is not passed on; callers are not trusted with `baggage` and `tracestate`."""
    kept = {
        key: value
        for key, value in meta.items()
        if key not in _OF_THIS_LEG and not key.startswith(("io.modelcontextprotocol/", "gateway/"))
    }
    return msgspec.json.encode({"_meta": kept}) if kept else None


def _named_call(params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    name = params.get("name")
    if type(name) is not str or not name:
        raise Fault(INVALID_PARAMS, 'Invalid params: "name" must be the name of a tool.')
    if len(name) > MAX_NAME_CHARS:
        raise Fault(INVALID_PARAMS, f"Unknown tool: {shown(name)}")
    arguments = params.get("arguments")
    if arguments is None:  # absent, or the null that some clients send for it
        arguments = {}
    if type(arguments) is not dict:
        raise Fault(INVALID_PARAMS, 'Invalid params: "arguments" must be an object.')
    if type(params.get("inputResponses", {})) is not dict:
        raise Fault(INVALID_PARAMS, 'Invalid params: "inputResponses" must be an object.')
    if "requestState" in params:  # whereas stray `inputResponses` are ignored, as the specification wants
        raise Fault(INVALID_PARAMS, "Invalid params: the gateway issued no such requestState.")
    return name, arguments
