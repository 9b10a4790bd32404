"""An MCP server over stdio whose one tool tries what its arguments say, and answers with how that ended.

`attempt` {how, path, ...} gives {"did": ...} or {"failed": "EACCES"}. Plain JSON-RPC, no SDK: it starts at once.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.restype = ctypes.c_long
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
CLONE_NEWUSER = 0x10000000
PR_CAPBSET_READ = 23


def checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def attach(given: dict[str, Any]) -> str:
    checked(LIBC.ptrace(PTRACE_ATTACH, given["pid"], None, None))
    LIBC.ptrace(PTRACE_DETACH, given["pid"], None, None)
    return "attached"


def truncate(given: dict[str, Any]) -> str:
    os.truncate(given["path"], 0)
    return "truncated"


def write(given: dict[str, Any]) -> str:
    Path(given["path"]).write_text(given.get("text", "planted"))
    return "written"


def rename(given: dict[str, Any]) -> str:
    Path(given["path"]).rename(given["to"])
    return "renamed"


def link(given: dict[str, Any]) -> str:
    os.link(given["path"], given["to"])
    return "linked"


def abstract(given: dict[str, Any]) -> str:
    with socket.socket(socket.AF_UNIX) as end:
        end.connect("\0" + given["name"])
    return "connected"


def run(given: dict[str, Any]) -> str:
    done = subprocess.run(given["words"], capture_output=True, text=True, timeout=30)
    return f"{done.returncode} {done.stdout}{done.stderr}"


def become_root_elsewhere(_: dict[str, Any]) -> str:
    """A user namespace gives all capabilities in it; with them a mount would hide the rules' folders."""
    checked(LIBC.unshare(CLONE_NEWUSER | 0x00020000))
    checked(LIBC.mount(b"none", b"/", None, 1 << 18 | 1 << 14, None))
    return "mounted"


def status(_: dict[str, Any]) -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Uid", "Gid", "Groups")
    return {line.split(":")[0]: line.split(":")[1].strip() for line in lines if line.startswith(wanted)}


def fetch(given: dict[str, Any]) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(given["url"], timeout=10) as answer:
        return str(answer.read().decode())


ATTEMPTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "read": lambda given: Path(given["path"]).read_bytes().decode("utf-8", "replace"),
    "list": lambda given: sorted(one.name for one in Path(given["path"]).iterdir()),
    "write": write,
    "truncate": truncate,
    "unlink": lambda given: Path(given["path"]).unlink(),
    "rename": rename,
    "link": link,
    "signal": lambda given: os.kill(given["pid"], given.get("number", signal.SIGCONT)),
    "attach": attach,
    "abstract": abstract,
    "run": run,
    "namespace": become_root_elsewhere,
    "status": status,
    "environ": lambda _: dict(os.environ),
    "pid": lambda _: os.getpid(),
    "cwd": lambda _: str(Path.cwd()),
    "descriptors": lambda _: sorted(one.name for one in Path("/proc/self/fd").iterdir()),
    "fetch": fetch,
}


def attempt(given: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"did": ATTEMPTS[given["how"]](given)}
    except OSError as error:
        reason = getattr(error, "reason", error)
        return {"failed": errno.errorcode.get(getattr(reason, "errno", None) or 0, repr(error))}


def answer(message: dict[str, Any], result: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\n")
    sys.stdout.flush()


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        method = message.get("method")
        if method == "server/discover":
            error = {"code": -32602, "message": "Invalid params"}
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}) + "\n")
            sys.stdout.flush()
        elif method == "initialize":
            answer(message, {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}})
        elif method == "tools/list":
            answer(message, {"tools": [{"name": "attempt", "inputSchema": {"type": "object"}}]})
        elif method == "tools/call":
            told = json.dumps(attempt(message["params"]["arguments"]))
            answer(message, {"content": [{"type": "text", "text": told}]})


if __name__ == "__main__":
    main()
