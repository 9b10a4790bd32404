"""The gateway's own tool, `gateway__approval_status`: how a call stands that waits for a person.

It is listed beside an agent's other tools, wherever it has any: policy may escalate a tool of any effect. Its name is
reserved: no server may be called `gateway`, and a server's own tool of that name is neither listed nor reached.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.doors.mcp import results
from gateway.errors import Refusal
from gateway.own_case import APPROVAL_STATUS

MAX_WAIT_S: Final = 50.0  # less than the shortest time-out of a client that is known (60 s)
MAX_CASE_CHARS: Final = 128

DEFINITION: Final[dict[str, Any]] = {
    "name": APPROVAL_STATUS,
    "title": "Approval status",
    "description": (
        "Tells how a tool call stands that waits for a person's approval. Use it after a result that says"
        ' "NOT executed. Waiting for approval", with the case id from there. With wait_s it answers as soon as the'
        " case has ended, or when the time is up. Once the call was approved and carried out, `result` holds the"
        " tool's own result, so you need not call the tool again. If it was denied, `guidance` says why and what to"
        " do instead. It never executes anything twice."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {
            "case_id": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_CASE_CHARS,
                "description": "The id of the case, as the result said that told you to wait.",
            },
            "wait_s": {
                "type": "number",
                "minimum": 0,
                "maximum": MAX_WAIT_S,
                "default": 0,
                "description": "How many seconds to wait for the case to end; 0 answers at once. People take minutes,"
                " so wait long rather than ask often.",
            },
        },
        "required": ["case_id"],
        "additionalProperties": False,
    },
    "outputSchema": {
        "type": "object",
        "properties": {
            "case_id": {"type": "string", "description": "The case that was asked about."},
            "state": {
                "type": "string",
                "description": "pending, approved or executing: not ended yet. succeeded or failed: it was carried"
                " out, see result. denied, expired, cancelled or invalidated: it was not executed. unknown: it may"
                " have been done, and a person must find out; do not repeat it.",
            },
            "guidance": {"type": "string", "description": "What to do now, in a sentence or two; may be empty."},
            "expires_at": {
                "type": "string",
                "format": "date-time",
                "description": "When a case that nobody decided is denied.",
            },
            "result": {"type": "object", "description": "The tool's own result, once there is one."},
        },
        "required": ["case_id", "state", "guidance", "expires_at"],
    },
    "annotations": {
        "title": "Approval status",
        "readOnlyHint": True,
        "destructiveHint": False,
        "idempotentHint": True,
        "openWorldHint": False,
    },
}


def asked(arguments: dict[str, Any]) -> tuple[str, float]:
    """The case and the seconds to wait that `arguments` ask for. Raises `malformed`."""
    case_id, wait_s = arguments.get("case_id"), arguments.get("wait_s", 0)
    # Printable, because no store can look up a NUL or half a character.
    if type(case_id) is not str or not 0 < len(case_id) <= MAX_CASE_CHARS or not case_id.isprintable():
        raise Refusal("malformed", '"case_id" must be the id of a case, as the answer says that told you to wait.')
    if type(wait_s) not in (int, float) or not 0 <= wait_s <= MAX_WAIT_S:
        raise Refusal("malformed", f'"wait_s" must be a number of seconds from 0 to {MAX_WAIT_S:g}.')
    if unknown := arguments.keys() - {"case_id", "wait_s"}:
        raise Refusal("malformed", f'There is no argument "{min(unknown)[:64]}"; send case_id and wait_s only.')
    return case_id, float(wait_s)


def told(status: dict[str, Any], *, modern: bool) -> bytes:
    """A case's status as the result of the tool, as JSON text and as structured content."""
    shown = dict(status)
    stored = shown.pop("result", None)
    if stored is not None:
        try:
            shown["result"] = msgspec.Raw(results.passed_on(stored, modern=False))
        except Refusal as unreadable:
            shown["guidance"] = unreadable.message
    text = msgspec.json.encode(shown)
    body: dict[str, Any] = {
        "content": [{"type": "text", "text": text.decode()}],
        "structuredContent": msgspec.Raw(text),
        "isError": False,
    }
    if modern:
        body["resultType"] = "complete"
    return msgspec.json.encode(body)
