"""What goes back in the body: results of tools, lists, errors, and refusals in words that a model can use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.actions import ToolTarget
from gateway.doors.mcp.protocol import INTERNAL_ERROR, INVALID_PARAMS, META_SERVER, METHOD_NOT_FOUND, SUPPORTED
from gateway.errors import Refusal
from gateway.protocols.key_folding import fold_name

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

# What a client acts on beside the content. Some read keys without regard to case, and would act on another spelling.
_GOVERNED: Final = frozenset({"isError", "resultType", "requestState", "inputRequests", "_meta"})
_SPELLINGS: Final = frozenset(map(fold_name, _GOVERNED))
_LONGEST_NAME: Final = 64  # characters of a name that are compared with these
_MAX_FIELDS: Final = 1000

# A refused call that a model can learn from is a result with `isError`, not a protocol error, which most agents
# never show to their model. Everything else (who may call at all, whether the gateway works) is a protocol error.
TOLD_TO_THE_MODEL: Final = frozenset(
    {
        "denied_by_policy",
        "approval_required",
        "approval_denied",
        "approval_expired",
        "outcome_unknown",
        "decided",
        "malformed",
        "rate_limited",
        "budget_exhausted",
        "conflict",
        "upstream_failed",
        "upstream_timeout",
    }
)
_RPC_CODES: Final = {
    "unknown_tool": INVALID_PARAMS,
    "malformed": INVALID_PARAMS,
    "not_governed": METHOD_NOT_FOUND,
    "internal": INTERNAL_ERROR,
}
_HINTS: Final = {
    "denied_by_policy": "Nothing was executed; the same call would be denied again.",
    "malformed": "Nothing was executed; correct the arguments and call again.",
    "rate_limited": "Nothing was executed.",
    "budget_exhausted": "Nothing was executed; calling again won't help until there is budget again.",
}


def progress(token: str | int, count: int, message: str) -> bytes:
    """The notification that a call is not forgotten; how long it takes nobody knows, so there is no total."""
    params = {"progressToken": token, "progress": count, "message": message}
    return _encode({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


def input_required(state: str, case_id: str) -> bytes:
    """The end of a leg: the client comes back with `state`, and nobody is asked for anything."""
    meta = {"gateway/code": "approval_required", "gateway/case": case_id}
    return _encode({"resultType": "input_required", "requestState": state, "_meta": meta})


def error(rpc_id: bytes, code: int, message: str, data: dict[str, Any] | None = None) -> bytes:
    """A JSON-RPC error; `rpc_id` is JSON text."""
    body: dict[str, Any] = {"code": code, "message": message}
    if data:
        body["data"] = data
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (rpc_id, _encode(body))


def result(rpc_id: bytes, body: bytes) -> bytes:
    """A JSON-RPC result; both arguments are JSON text."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (rpc_id, body)


def refusal_error(rpc_id: bytes, refusal: Refusal, action_id: str | None) -> bytes:
    """A refusal as a JSON-RPC error. Codes of the gateway's own are HTTP statuses, since the specification wants
    new codes outside the range that JSON-RPC reserves."""
    data: dict[str, Any] = {"gateway/code": refusal.code}
    if action_id is not None:
        data["gateway/action"] = action_id
    if refusal.rules:
        data["gateway/rules"] = refusal.rules
    if "case" in refusal.detail:
        data["gateway/case"] = refusal.detail["case"]
    return error(rpc_id, _RPC_CODES.get(refusal.code, refusal.http_status), refusal.message, data)


def refused_call(refusal: Refusal, action_id: str | None, *, modern: bool) -> bytes:
    """A refusal as the result of the call, for the model: what happened, why, what would pass."""
    meta: dict[str, Any] = {"gateway/code": refusal.code, "gateway/rules": refusal.rules}
    if action_id is not None:
        meta["gateway/action"] = action_id
    meta |= {f"gateway/{key}": refusal.detail[key] for key in ("case", "expires") if key in refusal.detail}
    body: dict[str, Any] = {
        "content": [{"type": "text", "text": explained(refusal)}],
        "isError": True,
        "_meta": meta,
    }
    if modern:
        body["resultType"] = "complete"
    return _encode(body)


def explained(refusal: Refusal) -> str:
    """The refusal as a text for a model."""
    waits = refusal.code == "approval_required" and "case" in refusal.detail
    parts = [_waits(refusal) if waits else refusal.message]
    parts += [reason for reason in refusal.reasons if reason not in parts[0]]
    if refusal.rules:
        parts.append(f"({'Rule' if len(refusal.rules) == 1 else 'Rules'}: {', '.join(refusal.rules)}.)")
    hint = _HINTS.get(refusal.code)
    unknown = refusal.detail.get("outcome") == "unknown"
    if refusal.code in ("upstream_failed", "upstream_timeout") and (unknown or refusal.detail.get("answered") != "yes"):
        if refusal.detail.get("dispatched") == "no":
            hint = "The call never reached the tool server, so nothing was done."
        else:
            hint = "It is not known whether the tool did it; find out before you call it again."
    if hint is not None and hint not in refusal.message:
        parts.append(hint)
    if refusal.retry_after_s is not None and not waits:  # people take minutes, and asking waits for them
        parts.append(f"Try again in {refusal.retry_after_s} s.")
    return " ".join(parts)


def _waits(refusal: Refusal) -> str:
    case_id = refusal.detail["case"]
    if refusal.detail.get("state", "pending") == "pending":
        return (
            f"NOT executed. Waiting for approval: case {case_id}. Ask `gateway__approval_status` or repeat the"
            " identical call."
        )
    return (
        f"NOT executed yet. It was approved and is being carried out: case {case_id}. Ask `gateway__approval_status`"
        " or repeat the identical call for its result."
    )


def passed_on(body: bytes, *, modern: bool) -> bytes:
    """A tool's own result, with every field it has but other spellings of those that say what kind of result it is.

    The stateless revision demands `resultType`, which servers of older ones don't send. Raises `upstream_failed` for
    what is not a complete result.
    """
    try:
        fields = _fields(body)
        if len(fields) > _MAX_FIELDS:
            raise ValueError("too many fields")
    except (ValueError, RecursionError) as bad:
        raise Refusal(
            "upstream_failed",
            "The tool server answered with something that is not a tool result; tell the tool's owner.",
        ) from bad
    odd = [name for name in fields if name not in _GOVERNED and fold_name(name[:_LONGEST_NAME]) in _SPELLINGS]
    if odd:
        body = _encode({name: value for name, value in fields.items() if name not in odd})
        fields = _fields(body)
    kind = fields.get("resultType")
    if kind is not None:
        if bytes(kind) != b'"complete"':
            raise Refusal(
                "upstream_failed",
                "The tool server asked for more input in the middle of the call, which the gateway does not"
                " pass on yet; call the tool with all it needs.",
            )
        return body
    if not modern:
        return body
    if not fields:
        return b'{"resultType":"complete"}'
    return b'{"resultType":"complete",' + body[body.index(b"{") + 1 :]


def tool_list(
    tools: Sequence[ToolTarget], own: dict[str, Any], server_info: dict[str, str], *, named: bool, modern: bool
) -> bytes:
    """The tools an agent may see, in a fixed order, each as its server described it; `own` too, if there are any.

    `named`: with the name that the gateway's own endpoint gives it, `server__tool`. What an agent may see can
    change at any moment and is nobody else's: the list is private and stale at once.
    """
    listed: list[dict[str, Any]] = [own] if tools else []
    for tool in tools:
        if not named and tool.tool == own["name"]:
            continue
        definition = tool.definition or {"name": tool.tool, "inputSchema": {"type": "object"}}
        listed.append({**definition, "name": tool.id} if named else definition)
    listed.sort(key=lambda each: str(each["name"]))
    body: dict[str, Any] = {"tools": listed}
    if modern:
        body |= {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "_meta": {META_SERVER: server_info}}
    return _encode(body)


_INSTRUCTIONS: Final = (
    "These tools are governed: each call is checked against policy and recorded. If a call is refused, its result"
    " says why and what would pass; read it before you try again. If it says that a person must approve the call, ask"
    " gateway__approval_status, or repeat the identical call later."
)
_CAPABILITIES: Final[dict[str, Any]] = {"tools": {}}


def initialized(version: str, server_info: dict[str, str]) -> bytes:
    """The answer to `initialize` at the revision `version`."""
    return _encode(
        {
            "protocolVersion": version,
            "capabilities": _CAPABILITIES,
            "serverInfo": server_info,
            "instructions": _INSTRUCTIONS,
        }
    )


def discovered(server_info: dict[str, str]) -> bytes:
    """The answer to `server/discover`; the same for everybody until the gateway is another version."""
    return _encode(
        {
            "resultType": "complete",
            "supportedVersions": SUPPORTED,
            "capabilities": _CAPABILITIES,
            "instructions": _INSTRUCTIONS,
            "ttlMs": 60_000,
            "cacheScope": "private",
            "_meta": {META_SERVER: server_info},
        }
    )
