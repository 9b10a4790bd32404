"""`tools/call` and `tools/list`: what a message asks for becomes an action, and its end an answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from gateway.actions import Action, Effect, Kind, ParsesTrace, Rpc
from gateway.doors.desk import Desk, Intake, Receive
from gateway.doors.mcp import envelope, own_tools, results
from gateway.doors.mcp.answer import Answer
from gateway.doors.mcp.governs import Governs, InFlight
from gateway.doors.mcp.head import Head
from gateway.doors.mcp.message import Message
from gateway.doors.mcp.mirrors import Mirrors, difference
from gateway.doors.mcp.protocol import INVALID_PARAMS, LEGACY, MODERN, Fault, shown
from gateway.doors.mcp.states import State, States, no_such_state, valid_until_ns
from gateway.doors.mcp.waiting import Ladder, LeftError, reply_of, while_connected
from gateway.errors import Refusal
from gateway.offload import run_sized
from gateway.own_case import APPROVAL_STATUS
from gateway.protocols.key_folding import fold

DOOR = "mcp"
MAX_NAME_CHARS = 256  # of `server__tool`; no registered tool comes near it
# Keys of `_meta` that the protocol, the gateway and tracing set for themselves on each leg, as they fold.
_OF_THIS_LEG = frozenset({"progresstoken", "traceparent", "tracestate", "baggage"})
_OF_THE_PROTOCOL = ("io.modelcontextprotocol/", "gateway/")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Request(NamedTuple):
    """A message, and everything around it that matters to an answer."""

    message: Message
    head: Head
    intake: Intake
    server: str | None  # None: the endpoint of all servers
    answer: Answer
    receive: Receive


class Calls:
    """Runs the two governed methods."""

    def __init__(
        self,
        desk: Desk,
        governor: Governs,
        *,
        definition: Callable[[str], Mapping[str, Any] | None],
        parse_trace: ParsesTrace,
        server_info: dict[str, str],
        states: States,
        ladder: Ladder,
    ) -> None:
        self._desk = desk
        self._governor = governor
        self._mirrors = Mirrors(definition)
        self._parse_trace = parse_trace
        self._server_info = server_info
        self._states = states
        self._ladder = ladder

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
        own = own_tools.DEFINITION
        await answer.result(results.tool_list(tools, own, self._server_info, named=named, modern=answer.modern))

    async def call(self, request: Request) -> None:
        """`tools/call`: decided, performed and recorded by the governor; refusals a model can use are results."""
        message, answer = request.message, request.answer
        name, arguments = _named_call(message.params)
        if name == APPROVAL_STATUS:
            await self._approval_status(request, arguments)
            return
        target = name if request.server is None else f"{request.server}__{name}"
        try:
            action = self._action(request, target, arguments)
        except Refusal as refusal:
            blank = self._desk.action(request.intake, kind=Kind.TOOL_CALL, door=DOOR, target=target, arguments={})
            await self._governor.refuse(blank, refusal)
            answer.action_id = blank.id
            await answer.refused_call(refusal)
            return
        answer.action_id = action.id
        leg = self._leg(request, action)
        if answer.modern and not await self._mirrors_agree(request, name, action):
            return
        running = self._governor.start(action, hold_s=self._hold_s(request))
        try:
            reply = await reply_of(running, request.receive, self._ladder, self._teller(request, running))
            body = b"{}" if reply is None else reply.body
            body = await run_sized(len(body), results.passed_on, body, modern=answer.modern)
        except LeftError:  # there is nobody to answer; the case stays
            answer.sent = True
        except Refusal as refusal:
            if refusal.code == "unknown_tool":
                await answer.unknown_tool(name)
                return
            answer.decision, answer.replayed = running.decision, running.replayed
            case_id = running.case
            if answer.modern and refusal.code == "approval_required" and case_id and leg < self._ladder.legs:
                state = State(case_id, leg, valid_until_ns(request.intake.received_ns, self._ladder.leg_s))
                sealed = self._states.issue(state, request.intake.caller.credential_id, action.digest)
                await answer.result(results.input_required(sealed, case_id))
            else:
                await self._refused(answer, refusal)
        else:
            answer.decision, answer.replayed = running.decision, running.replayed
            await answer.result(body)

    async def _refused(self, answer: Answer, refusal: Refusal) -> None:
        if refusal.code in results.TOLD_TO_THE_MODEL:
            await answer.refused_call(refusal)
        else:
            await answer.refusal(refusal)

    # ------------------------------------------------------------ waiting for a person

    async def _approval_status(self, request: Request, arguments: dict[str, Any]) -> None:
        """The gateway's own tool: how a case of the asking agent stands."""
        answer, target = request.answer, APPROVAL_STATUS
        if "requestState" in request.message.params:
            raise no_such_state()
        fault: Refusal | None = None
        try:
            case_id, wait_s = own_tools.asked(arguments)
            arguments = {"case_id": case_id, "wait_s": wait_s}
        except Refusal as refusal:
            fault, arguments = refusal, {}
        action = self._desk.action(request.intake, kind=Kind.TOOL_CALL, door=DOOR, target=target, arguments=arguments)
        answer.action_id = action.id
        if fault is not None:
            await self._governor.refuse(action, fault)
            await answer.refused_call(fault)
            return
        try:
            told = await while_connected(self._governor.approval_status(action, case_id, wait_s), request.receive)
        except LeftError:
            answer.sent = True
        except Refusal as refusal:  # the governor has recorded it
            if refusal.code == "not_found":  # the id of a case is an argument, so the model is told that it is wrong
                await answer.refused_call(refusal)
            else:
                await self._refused(answer, refusal)
        else:
            await answer.result(own_tools.told(told, modern=answer.modern))

    def _leg(self, request: Request, action: Action) -> int:
        """Which leg of its waiting a call is, from 1. Raises `Fault` for a `requestState` that is not its own."""
        params = request.message.params
        if "requestState" not in params:
            return 1
        if not request.answer.modern:
            raise no_such_state()
        intake = request.intake
        state = self._states.read(
            params["requestState"], intake.caller.credential_id, action.digest, intake.received_ns
        )
        return state.leg + 1

    def _hold_s(self, request: Request) -> float | None:
        """How long the client can be held; None: as long as is configured."""
        if request.answer.modern:
            return self._ladder.leg_s
        return None if _progress_token(request) is None else self._ladder.progress_s

    def _teller(self, request: Request, running: InFlight) -> Callable[[], Awaitable[None]] | None:
        """Tells the client that its call waits, where it asked to be told."""
        token, answer = _progress_token(request), request.answer
        if token is None or answer.modern:
            return None

        async def tell() -> None:
            answer.decision, answer.replayed = running.decision, running.replayed
            asked = running.decision is None or running.decision.effect is Effect.ESCALATE
            what = "Waiting for approval" if asked else "Being carried out"
            await answer.progress(token, f"{what}: case {running.case}.")

        return tell

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
            # The message is part of this trace; the request that carried it belongs to another span, or trace.
            state, carrier = message.meta.get("tracestate"), intake.trace
            link = None if carrier.parent_id is None else (carrier.trace_id, carrier.parent_id)
            said = state.encode() if isinstance(state, str) else None
            intake = intake._replace(trace=self._parse_trace(trace.encode(), said, link))
        return self._desk.action(
            intake,
            rpc=_rpc(request),
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
            await self._governor.refuse(action, Refusal("malformed", fault.message))
            await answer.fault(fault)
        else:
            await self._governor.refuse(action, Refusal("unknown_tool", f"Unknown tool: {name}"))
            await answer.unknown_tool(name)
        return False

    def _listing(self, request: Request) -> Action:
        target = request.server or "*"
        return self._desk.action(
            request.intake, kind=Kind.TOOL_LIST, door=DOOR, target=target, arguments={}, rpc=_rpc(request)
        )


def _vendor_meta(meta: dict[str, Any]) -> bytes | None:
    """What else the client attached for the tool, as `{"_meta": {...}}`.

    What the protocol, the gateway and tracing say for themselves on each leg is not passed on in any spelling; callers
    are not trusted with `baggage` and `tracestate`. Neither are keys that MCP does not allow, which are all but ASCII
    (2026-07-28, basic, "_meta").
    """
    kept = {key: value for key, value in meta.items() if key.isascii() and not _is_set_on_each_leg(fold(key))}
    return msgspec.json.encode({"_meta": kept}) if kept else None


def _is_set_on_each_leg(folded: str) -> bool:
    return folded in _OF_THIS_LEG or folded.startswith(_OF_THE_PROTOCOL)


def _rpc(request: Request) -> Rpc:
    """The request as it stood on the wire; who names no revision means the oldest."""
    version = MODERN if request.answer.modern else request.head.version or LEGACY[-1]
    return Rpc(version, request.message.rpc_id[:MAX_NAME_CHARS].decode("utf-8", "replace").strip('"'))


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
    return name, arguments  # stray `inputResponses` are ignored, as the specification wants


def _progress_token(request: Request) -> str | int | None:
    token = request.message.meta.get("progressToken")
    return token if type(token) in (str, int) and request.head.takes_events else None
