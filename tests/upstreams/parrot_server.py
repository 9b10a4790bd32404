"""A tool server over stdio that repeats its secret (`TOKEN`) wherever a server may say something."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

TOKEN = os.environ["TOKEN"]
ESCAPED = "".join(f"\\u{ord(char):04x}" for char in TOKEN)


def say(message: str) -> None:
    sys.stdout.write(message + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """On standard error, in two pieces."""
    os.write(2, text[:12].encode())
    os.write(2, text[12:].encode() + b"\n")


def definition(name: str) -> dict[str, Any]:
    properties = {"how": {"type": "string", "description": f"not {TOKEN}"}, TOKEN: {"type": "string", "enum": [TOKEN]}}
    schema = {"type": "object", "properties": properties}
    return {"name": name, "title": TOKEN, "description": f"Uses {TOKEN}.", "inputSchema": schema}


def answer(rpc_id: Any, how: str) -> str:
    text = f"my token is {TOKEN}!"
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    if how == "structured":
        result["structuredContent"] = {"token": TOKEN, TOKEN: [{"deep": text}]}
    elif how == "is-error":
        result["isError"] = True
    elif how == "resource":
        inner = {"uri": f"file:///{TOKEN}", "mimeType": "text/plain", "text": text}
        result["content"] = [
            {"type": "resource", "resource": inner},
            {"type": "resource_link", "uri": TOKEN, "name": "n"},
        ]
    elif how == "nested":
        result["content"][0]["text"] = json.dumps({"token": TOKEN, "in": json.dumps({"token": TOKEN})})
    elif how in ("error", "error-escaped"):
        error = {"code": -32000, "message": text, "data": {"token": TOKEN, TOKEN: [text]}}
        raw = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "error": error})
        return raw.replace(TOKEN, ESCAPED) if how == "error-escaped" else raw
    raw = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "result": result})
    return raw.replace(TOKEN, ESCAPED) if how == "escaped" else raw


def main() -> None:
    complain(f"starting with {TOKEN}")
    complain("x" * (990 - 8) + TOKEN)  # cut by the gateway in the middle of the token
    complain("x" * 1990 + TOKEN)
    for line in sys.stdin:
        message = json.loads(line)
        rpc_id, method, params = message.get("id"), message.get("method"), message.get("params") or {}
        if method == "initialize":
            result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "instructions": TOKEN}
            say(
                json.dumps(
                    {
                        "jsonrpc": "2.0",
                        "id": rpc_id,
                        "result": result | {"serverInfo": {"name": TOKEN, "version": TOKEN}},
                    }
                )
            )
        elif method == "tools/list":
            say(
                json.dumps(
                    {
                        "jsonrpc": "2.0",
                        "id": rpc_id,
                        "result": {"tools": [definition("repeat"), definition(f"t-{TOKEN}")]},
                    }
                )
            )
        elif method == "tools/call":
            say(f"garbage {TOKEN}")
            say(answer(rpc_id, str(params.get("arguments", {}).get("how"))))
        elif rpc_id is not None:
            say(json.dumps({"jsonrpc": "2.0", "id": rpc_id, "error": {"code": -32601, "message": TOKEN}}))
    complain(f"last words: {TOKEN}")
    sys.exit(3)


if __name__ == "__main__":
    main()
