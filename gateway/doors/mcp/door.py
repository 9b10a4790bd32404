"""The door itself: checks that come before a message is read, and which method goes where. Pure ASGI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from gateway.actions import Action, Kind, ParsesTrace
from gateway.doors.desk import WRONG_HOST, Desk, Intake, Receive, Scope, Send
from gateway.doors.mcp import envelope, results
from gateway.doors.mcp.answer import Answer
from gateway.doors.mcp.calls import DOOR, Calls, Request
from gateway.doors.mcp.governs import Governs
from gateway.doors.mcp.head import Head
from gateway.doors.mcp.message import Reader
from gateway.doors.mcp.origins import Origins
from gateway.doors.mcp.protocol import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    LEGACY,
    METHOD_NOT_FOUND,
    MODERN,
    Fault,
    shown,
)
from gateway.doors.mcp.sessions import Sessions
from gateway.doors.mcp.states import States
from gateway.doors.mcp.waiting import SHIPPED, Ladder
from gateway.errors import Refusal

log = structlog.get_logger("gateway.doors.mcp")

# Policy reads documents of at most 1 MiB (`gateway.policy.reading.MAX_DOCUMENT_BYTES`): a larger call would be denied.
MAX_MESSAGE_BYTES = 1024 * 1024

# What a refused method would have been, for its record.
_KINDS: Final = {"prompts": Kind.PROMPT_GET, "resources": Kind.RESOURCE_READ, "tools": Kind.TOOL_CALL}


class McpDoor:
    """Serves `/mcp` and `/mcp/{server}`; the dispatcher hands every request under these paths over.

    `definition` gives a tool's live definition by `server__tool`, for the headers that repeat arguments;
    `version` is the gateway's own; `ladder` says how long clients are held while a person decides.
    """

    def __init__(
        self,
        desk: Desk,
        governor: Governs,
        *,
        sessions: Sessions,
        origins: Origins,
        definition: Callable[[str], Mapping[str, Any] | None],
        parse_trace: ParsesTrace,
        version: str,
        ladder: Ladder = SHIPPED,
    ) -> None:
        self._desk = desk
        self._governor = governor
        self._sessions = sessions
        self._origins = origins
        self._reader = Reader()
        self._server_info = {
            "name": "agent-governance-gateway",
            "title": "Agent Governance Gateway",
            "version": version,
        }
        self._discovered = results.discovered(self._server_info)
        self._calls = Calls(
            desk,
            governor,
            definition=definition,
            parse_trace=parse_trace,
            server_info=self._server_info,
            states=States(sessions.key_for(b"request-state")),
            ladder=ladder,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._desk.request_id()
        answer = Answer(send, request_id)
        intake: Intake | None = None
        try:
            try:
                head = Head(scope["headers"])
                if (wrong_host := scope.get(WRONG_HOST)) is not None:
                    raise wrong_host
                self._origins.check(head.values.get(b"origin"))
                intake = await self._desk.admit(scope, request_id)
                if intake.fault is not None:
                    raise intake.fault
                await self._serve(scope, receive, head, intake, answer)
            except Fault as fault:
                await self._record(intake, answer, Refusal(fault.code, fault.message))
                await answer.fault(fault)
            except Refusal as refusal:
                await self._record(intake, answer, refusal)
                await answer.refusal(refusal)
        except Refusal as unrecorded:  # the log can't take the refusal, so that is what the caller hears
            await answer.refusal(unrecorded)
        except Exception:
            log.exception("door_fault", request_id=request_id)
            if not answer.sent:
                await answer.refusal(
                    Refusal("internal", f"The gateway failed on this request; its log has the id {request_id}.")
                )

    async def _serve(self, scope: Scope, receive: Receive, head: Head, intake: Intake, answer: Answer) -> None:
        server = scope["path"][len("/mcp") :].strip("/") or None
        if server is not None and not self._governor.server_known(server, intake.caller):
            raise Refusal("not_found", f"There is no tool server {shown(server)} for this agent; /mcp has all of them.")
        if scope["method"] == "DELETE" and head.version != MODERN:
            await self._end_session(head, intake, answer)
        elif scope["method"] != "POST":
            # Clients of the older revisions ask for a stream of the server's own messages; it is not an action.
            await answer.fault(Fault(INVALID_REQUEST, "MCP messages are sent with POST.", http_status=405))
        else:
            await self._post(scope, receive, head, intake, server, answer)

    async def _end_session(self, head: Head, intake: Intake, answer: Answer) -> None:
        if b"mcp-session-id" not in head.values:
            raise Fault(INVALID_REQUEST, "Send the Mcp-Session-Id of the session to end.")
        self._check_session(head, intake)
        self._sessions.end(head.values[b"mcp-session-id"])
        await answer.empty(204)

    async def _post(
        self, scope: Scope, receive: Receive, head: Head, intake: Intake, server: str | None, answer: Answer
    ) -> None:
        answer.modern = head.version == MODERN  # so that a body that can't be read is answered in the right era
        if not head.is_json:
            raise Refusal("malformed", "Send the message as Content-Type: application/json.", http_status=415)
        accepted = head.accepts()
        if accepted is None:
            raise Refusal("malformed", "The answer is application/json; add it to Accept.", http_status=406)
        answer.sse = accepted == "sse"
        body = await self._desk.body(scope, receive, MAX_MESSAGE_BYTES, intake.caller.agent.id)
        message = self._reader.read(body)
        answer.rpc_id = message.rpc_id
        request = Request(message, head, intake, server, answer, receive)
        answer.modern = envelope.is_modern(head, message)
        if answer.modern:
            envelope.check(head, message)
            await self._modern(request)
        else:
            await self._legacy(request)

    async def _modern(self, request: Request) -> None:
        match request.message.method:
            case "tools/call":
                await self._calls.call(request)
            case "tools/list":
                await self._calls.list_tools(request)
            case "server/discover":
                await request.answer.result(self._discovered)
            case _:
                await self._other(request)

    async def _legacy(self, request: Request) -> None:
        method = request.message.method
        if method == "initialize":
            await self._initialize(request)
            return
        if b"mcp-session-id" in request.head.values:
            self._check_session(request.head, request.intake)
        match method:
            case "tools/call":
                await self._calls.call(request)
            case "tools/list":
                await self._calls.list_tools(request)
            case "ping":
                await request.answer.result(b"{}")
            case _:
                await self._other(request)

    async def _initialize(self, request: Request) -> None:
        asked = request.message.params.get("protocolVersion")
        if type(asked) is not str:
            raise Fault(INVALID_PARAMS, 'Invalid params: "protocolVersion" must be a string.')
        version = asked if asked in LEGACY else LEGACY[0]
        session = self._sessions.issue(request.intake.caller.credential_id)
        body = results.initialized(version, self._server_info)
        await request.answer.result(body, [(b"mcp-session-id", session)])

    async def _other(self, request: Request) -> None:
        """Notifications are taken and dropped: none of them asks for anything that the gateway does. Other
        methods of the protocol, and methods that it doesn't have, are refused until they are governed."""
        method, answer = request.message.method, request.answer
        if request.message.id is None:
            await answer.empty(202)
            return
        kind = _KINDS.get(method.partition("/")[0], Kind.AGENT_MESSAGE)
        refusal = Refusal("not_governed", f"Method not found: the gateway does not govern {shown(method)}.")
        await self._refuse(request.intake, kind, shown(method), answer, refusal)
        await answer.fault(Fault(METHOD_NOT_FOUND, refusal.message, http_status=404))

    def _check_session(self, head: Head, intake: Intake) -> None:
        session = head.values[b"mcp-session-id"]
        once = b"mcp-session-id" not in head.repeated
        if not once or not self._sessions.belongs(session, intake.caller.credential_id):
            raise Fault(
                INVALID_REQUEST,
                "Session not found: this Mcp-Session-Id was ended, or is not of this credential; initialize again.",
                http_status=404,
                code="not_found",
            )

    async def _record(self, intake: Intake | None, answer: Answer, refusal: Refusal) -> None:
        """Record what the door itself refuses; strangers are only counted, so that they can't fill the disk."""
        if intake is not None:
            await self._refuse(intake, Kind.TOOL_CALL, "", answer, refusal)
        elif refusal.code in ("unauthenticated", "forbidden", "wrong_host"):
            self._governor.unauthenticated()

    async def _refuse(self, intake: Intake, kind: Kind, target: str, answer: Answer, refusal: Refusal) -> None:
        blank: Action = self._desk.action(intake, kind=kind, door=DOOR, target=target, arguments={})
        answer.action_id = blank.id
        await self._governor.refuse(blank, refusal)
