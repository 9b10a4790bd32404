"""A tool server over stdio that misbehaves as its first argument says. Plain JSON-RPC, no SDK: it starts at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

HOW = sys.argv[1] if len(sys.argv) > 1 else "good"
PAGES = [["echo", "env"], ["act"]]


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def definition(name: str) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, "x-vendor": {"kept": [1, 2.5, None]}}


def answer(message: dict[str, Any], result: Any) -> None:
    say({"jsonrpc": "2.0", "id": message["id"], "result": result})


def text(words: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words, "x-odd": 1}], "x-unknown": {"n": 12345678901234567890}}


def call(message: dict[str, Any]) -> None:
    params = message["params"]
    name, arguments = params["name"], params.get("arguments", {})
    if name == "env":
        answer(message, text(json.dumps(dict(os.environ))))
    elif name == "act":
        act(message, arguments.get("how"))
    else:
        answer(message, text(json.dumps(params)))


def act(message: dict[str, Any], how: str | None) -> None:
    rpc_id = message["id"]
    if how == "die":
        os._exit(3)
    elif how == "close":
        os.close(1)
        threading.Event().wait()
    elif how == "garbage":
        sys.stdout.write("this is not JSON\n[1,2]\n\n\x00\n")
        answer(message, text("after the garbage"))
    elif how == "wrong-id":
        say({"jsonrpc": "2.0", "id": rpc_id + 1000, "result": text("for nobody")})
        say({"jsonrpc": "2.0", "id": str(rpc_id), "result": text("for nobody")})
        answer(message, text("for me"))
    elif how == "giant":
        answer(message, text("x" * (17 * 1024 * 1024)))
    elif how == "giant-nameless":
        say({"result": text("x" * (17 * 1024 * 1024)), "id": rpc_id, "jsonrpc": "2.0"})
    elif how == "never":
        pass
    elif how == "stuck":
        threading.Event().wait()
    elif how == "error":
        error = {"code": -32602, "message": "bad arguments; token=abcdef123456"}
        say({"jsonrpc": "2.0", "id": rpc_id, "error": error})
    elif how == "neither":
        say({"jsonrpc": "2.0", "id": rpc_id})
    elif how == "not-a-result":
        answer(message, [1])
    elif how == "is-error":
        answer(message, {**text("no"), "isError": True})
    elif how == "ask":
        say({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        pong = json.loads(sys.stdin.readline())
        say({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}})
        answer(message, text(json.dumps([pong, json.loads(sys.stdin.readline())])))
    elif how == "cancelled":
        answer(message, text(json.dumps(json.loads(sys.stdin.readline()))))
    elif how is not None and how.startswith("flood"):
        flood(how)
    elif how == "grow":
        PAGES.append(["new"])
        say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        answer(message, text("grown"))
    elif how == "noise":
        sys.stderr.write("x" * 300_000 + "\n" + "line\n" * 2000)
        sys.stderr.flush()
        answer(message, text("loud"))
    elif how == "grandchild":
        child = subprocess.Popen(
            [sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"]
        )
        answer(message, text(str(child.pid)))


def flood(how: str) -> None:
    """For ever, as fast as the pipe takes it; standard input is not read meanwhile."""
    said = {
        "flood-pings": '{"jsonrpc": "2.0", "id": "p", "method": "ping"}',
        "flood-lines": "1",
        "flood-blank": "",
        "flood-stderr": "",
    }[how]
    out = sys.stderr if how == "flood-stderr" else sys.stdout
    while True:
        out.write(f"{said}\n" * 10_000)


def main() -> None:
    if HOW == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if HOW == "exit":
        sys.exit(7)
    for line in sys.stdin:
        message = json.loads(line)
        method = message.get("method")
        if method == "server/discover":
            if HOW == "modern":
                answer(
                    message,
                    {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"},
                )
            elif HOW == "future":
                error = {"code": -32022, "message": "no", "data": {"supported": ["2099-01-01"]}}
                say({"jsonrpc": "2.0", "id": message["id"], "error": error})
            elif HOW != "deaf":  # what servers of the 1.x SDKs say
                say({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32602, "message": "Invalid params"}})
        elif method == "initialize":
            version = "1999-01-01" if HOW == "ancient" else "2024-11-05"
            answer(message, {"protocolVersion": version, "capabilities": {"tools": {"listChanged": True}}})
        elif method == "tools/list":
            page = int(message["params"].get("cursor", "0"))
            found: dict[str, Any] = {"tools": [definition(name) for name in PAGES[page]]}
            if HOW == "endless":
                found["nextCursor"] = "0"
            elif page + 1 < len(PAGES):
                found["nextCursor"] = str(page + 1)
            answer(message, found)
        elif method == "ping":
            answer(message, {})
        elif method == "tools/call":
            call(message)
    if HOW == "stubborn":
        threading.Event().wait()


main()
