"""`make replicas`: two gateways as one, on PostgreSQL, Redis and OPA, behind a balancer, with the quickstart in them.

Quick and harmless to run again: the data stays in DATA_DIR/replicas. What ends is started again, as a container would
be, so that you may kill whatever you like.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from gateway.errors import Refusal
from gateway.identity.registry import OPERATOR_TOKEN
from gateway.quickstart import note
from gateway.quickstart.keeping import Keeping
from gateway.quickstart.page import AGENT, page
from gateway.quickstart.topology import Topology
from gateway.store import DirectoryLock

FOLDER = "replicas"
_LOOK_S = 0.5
_LEDGER_S = 30.0
_ASK_S = 10.0


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop; 0 then, 1 with one sentence where something does not start."""
    parser = argparse.ArgumentParser(prog="python -m gateway.quickstart.replicas", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="of the balancer")
    parser.add_argument("--config", type=Path, default=Path("gateway.yaml"), help="of the gateways")
    given = parser.parse_args(argv)
    data_dir = Path(os.environ.get("GATEWAY_DATA_DIR") or "var")
    folder = note.replicas_of(data_dir) or data_dir / FOLDER
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    os.umask(0o077)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = DirectoryLock(folder)
        try:
            _run(Topology(folder, config=given.config, port=given.port), stopping)
        finally:
            lock.release()
    except (Refusal, httpx.HTTPError) as failed:
        print(f"replicas: {failed}", file=sys.stderr)  # noqa: T201 - the sentence that exit code 1 promises
        return 1
    return 0


def _run(topology: Topology, stopping: threading.Event) -> None:
    if topology.opa is None:
        _say("No OPA program is here (`make .opa/.made` gets it where there is go), so the gateways decide themselves.")
    _say("Starting PostgreSQL, Redis, OPA, two gateways and HAProxy ...")
    with topology:
        _welcome(topology, stopping)
        keeping = Keeping(topology.servers, now_s=time.monotonic, say=_say)
        while not stopping.wait(_LOOK_S):
            keeping.look()
        _say("Stopping ...")


def _welcome(topology: Topology, stopping: threading.Event) -> None:
    asked = topology.gateways[0]  # each replica has its own door for whoever can read its folder
    token = (asked.folder / OPERATOR_TOKEN).read_text().strip()
    with _client(asked.url, token) as operator:
        ends_s = time.monotonic() + _LEDGER_S
        while not _has_ledger(operator) and not stopping.wait(0.1) and time.monotonic() < ends_s:
            pass
        key = note.read(topology.folder).get("GATEWAY_KEY", "")
        if not _is_good(topology.url, key):
            key = str(_post(operator, f"/api/v1/agents/{AGENT}/keys")["secret"])
        console = str(_post(operator, "/api/v1/sign-in")["url"])
    values = {"GATEWAY_URL": topology.url, "GATEWAY_KEY": key, "GATEWAY_CONSOLE": console}
    note.write(topology.folder, values | {"GATEWAY_DATA_DIR": str(asked.folder)} | topology.footing)
    _say(page(topology.url, key, console, asked.folder, environment=topology.folder / note.NAME))
    _say(_table(topology))


def _client(url: str, token: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=_ASK_S, trust_env=False)


def _has_ledger(operator: httpx.Client) -> bool:
    tools = operator.get("/api/v1/tools").raise_for_status().json()
    return any(tool["id"] == "ledger__transfer" and tool["state"] == "live" for tool in tools)


def _post(operator: httpx.Client, path: str) -> dict[str, Any]:
    made: dict[str, Any] = operator.post(path, json={}).raise_for_status().json()
    return made


def _is_good(url: str, key: str) -> bool:
    """Whether the key of the last run still is one."""
    if not key:
        return False
    with _client(url, key) as agent:
        return agent.get("/api/v1/me").status_code == 200


def _table(topology: Topology) -> str:
    """Who is where; each by its process, for those who want to see one die."""
    lines = [f"  {one.name:<11} 127.0.0.1:{one.port:<6} process {one.pid}" for one in topology.servers]
    told = topology.folder / note.NAME
    return "\n".join(
        [
            "Behind the balancer, each started again when it ends:",
            *lines,
            f"Logs and data: {topology.folder}. For the command line: set -a; . {shlex.quote(str(told))}; set +a",
        ]
    )


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is what the command is for


if __name__ == "__main__":
    sys.exit(main())
