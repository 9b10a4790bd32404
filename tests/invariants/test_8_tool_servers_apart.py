"""Invariant 8 against a tool server that the gateway runs: it reaches neither keys nor data, neither the environment of
the gateway nor of anything beside it, and where the kernel can't see to that, everybody is told."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.upstreams.confinement.support import LEAST_ABI, support
from tests.e2e.gateway_process import Agent, Gateway, within
from tests.e2e.no_landlock import forbid_landlock

SERVER = Path(__file__).parents[1] / "upstreams" / "malicious_server.py"
REFUSED = {"EACCES", "EPERM"}
SECRETS = {
    "UP_KEY": "up-secret-0123456789",
    "OWN_TOKEN": "own-secret-0123456789",
    "AWS_SECRET_ACCESS_KEY": "aws-s3cret",
}

needs_landlock = pytest.mark.skipif(
    support().landlock < LEAST_ABI, reason=f"this kernel has no Landlock of ABI {LEAST_ABI} (Linux 6.2)"
)


def manifest(name: str, **more: Any) -> dict[str, Any]:
    transport = {"type": "stdio", "command": [sys.executable, "-S", str(SERVER)], **more}
    tool = {"risk": "low", "effect": "read"}
    return {"version": 1, "server": name, "owner": "dana", "transport": transport, "tools": {"attempt": tool}}


class Apart:
    """A gateway that runs two malicious servers."""

    def __init__(self, folder: Path, preexec: Callable[[], None] | None = None, settings: str = "") -> None:
        self.gateway = Gateway(folder, "http://127.0.0.1:9", preexec=preexec)
        self.gateway.environment |= SECRETS
        self.gateway.config.write_text(f"{self.gateway.config.read_text()}{settings}")
        (folder / "tools_registry" / "ledger.yaml").unlink()
        (folder / "policies" / "grants" / "data.yaml").write_text(
            'agents: {}\nteams: {}\ntiers:\n  standard: {models: ["*"], servers: {one: {max_risk: low}, two: {max_risk: low}}}\n'
        )
        self.register("one", env={"TOKEN": "env:OWN_TOKEN"})
        self.register("two")
        self._agent: Agent | None = None

    def register(self, name: str, **more: Any) -> None:
        file = self.gateway.folder / "tools_registry" / f"{name}.yaml"
        file.write_text(json.dumps(manifest(name, **more)))

    def connected(self, name: str) -> bool:
        servers = self.gateway.operator("GET", "/status").json()["tool_servers"]
        return any(one["id"] == name and one["state"] == "connected" for one in servers)

    def start(self) -> None:
        self.gateway.start()
        within(lambda: self.connected("one") and self.connected("two"), "both servers")

    @property
    def pid(self) -> int:
        assert self.gateway.process is not None
        return self.gateway.process.pid

    def try_to(self, server: str, how: str, **given: Any) -> Any:
        """What one of the servers came to, asked through the gateway."""
        if self._agent is None:
            self._agent = self.gateway.agent("prober")
        params = {"name": "attempt", "arguments": {"how": how, **given}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        answer = self._agent.post(f"/mcp/{server}", body, accept="application/json, text/event-stream").text
        line = next((one[6:] for one in answer.splitlines() if one.startswith("data: {")), answer)
        told = json.loads(json.loads(line)["result"]["content"][0]["text"])
        return told["did"] if "did" in told else told["failed"]


@contextlib.contextmanager
def apart(folder: Path, preexec: Callable[[], None] | None = None, settings: str = "") -> Iterator[Apart]:
    it = Apart(folder, preexec, settings)
    try:
        it.start()
        yield it
    finally:
        it.gateway.close()


def seen_by_root(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text()


def seen_by_nobody(pid: int, name: str = "environ") -> str:
    """What a plain user of this machine reads of a process; '' where that is refused."""
    words = ["cat", f"/proc/{pid}/{name}"]
    user = {"user": pwd.getpwnam("nobody").pw_uid} if os.geteuid() == 0 else {}
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd="/", **user).stdout  # type: ignore[call-overload,no-any-return]


def no_secret_is_seen(pid: int) -> None:
    if os.geteuid() == 0:
        assert "PATH=" in seen_by_root(pid)
        assert not [
            name for name, secret in SECRETS.items() if secret in seen_by_root(pid) or name in seen_by_root(pid)
        ]
    assert seen_by_nobody(pid) == ""


@needs_landlock
def test_a_malicious_server_reaches_nothing_of_the_gateway_or_of_its_sibling(tmp_path: Path) -> None:
    with apart(tmp_path) as it:
        var = it.gateway.data_dir
        keys = [path for path in var.rglob("*") if path.is_file() and "tool-servers" not in path.parts]
        assert {"operator.token", "gateway.db"} <= {path.name for path in keys}
        assert [path for path in keys if path.parent.name == "keys"]
        for path in keys:
            assert it.try_to("one", "read", path=str(path)) in REFUSED, path
        for path in (var / "operator.token", it.gateway.config, tmp_path / "tools_registry" / "one.yaml"):
            for how in ("read", "write", "truncate", "unlink"):
                assert it.try_to("one", how, path=str(path)) in REFUSED, (how, path)
        assert it.try_to("one", "list", path=str(var)) in REFUSED
        other = it.try_to("two", "pid")
        for pid in (it.pid, other):
            for name in ("environ", "mem", "maps", "cmdline", "fd"):
                how = "list" if name == "fd" else "read"
                assert it.try_to("one", how, path=f"/proc/{pid}/{name}") in REFUSED, (pid, name)
            assert it.try_to("one", "attach", pid=pid) in REFUSED
        assert it.try_to("one", "list", path=str(var / "tool-servers" / "two")) in REFUSED
        assert it.try_to("one", "environ")["TOKEN"] == "[redacted]", "its own it has, and can't give it away"
        assert not {"UP_KEY", "AWS_SECRET_ACCESS_KEY", "OWN_TOKEN"} & it.try_to("one", "environ").keys()
        no_secret_is_seen(it.pid)
        assert not [secret for secret in SECRETS.values() if secret in seen_by_root(other)]
        assert not any("tool_server_not_confined" in line for line in it.gateway.lines)
        assert any('"event":"confinement"' in line and '"two":"best_effort"' in line for line in it.gateway.lines)
        # A reload still finds what only the pipe brought.
        it.register("two", env={"LATER": "env:AWS_SECRET_ACCESS_KEY"})
        assert it.gateway.operator("POST", "/reload").status_code == 200
        within(lambda: it.connected("two") and "LATER" in it.try_to("two", "environ"), "the changed server")
        assert it.try_to("two", "environ")["LATER"] == "[redacted]"
        no_secret_is_seen(it.pid)


def test_without_landlock_everybody_is_told_and_what_can_hold_holds(tmp_path: Path) -> None:
    with apart(tmp_path, preexec=forbid_landlock) as it:
        status = it.gateway.operator("GET", "/status").json()
        told = {one["id"]: one["reason"] for one in status["components"]}
        assert "one, two" in told["confinement"]
        assert "Landlock is missing or forbidden" in told["confinement"]
        assert any('"event":"tool_server_not_confined"' in line for line in it.gateway.lines)
        for name in ("environ", "mem", "maps"):
            assert it.try_to("one", "read", path=f"/proc/{it.pid}/{name}") in REFUSED, name
        assert it.try_to("one", "attach", pid=it.pid) in REFUSED
        found = it.try_to("one", "status")
        assert found["NoNewPrivs"] == "1"
        assert {int(found[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
        no_secret_is_seen(it.pid)


def test_required_starts_no_server_where_it_would_not_be_confined(tmp_path: Path) -> None:
    it = Apart(tmp_path, forbid_landlock, "stdio: {confinement: required}\n")
    try:
        it.gateway.start()
        within(lambda: all(one["state"] == "unreachable" for one in servers(it)), "the refusals")
        assert all("must be confined" in one["reason"] for one in servers(it))
    finally:
        it.gateway.close()


def servers(it: Apart) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = it.gateway.operator("GET", "/status").json()["tool_servers"]
    return found
