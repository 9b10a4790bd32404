"""The whole gateway as its users run it, `gateway serve` in a process of its own, with a folder that a test may edit."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from gateway.audit.check import Report, verify_data_dir
from tests.e2e.upstream import PATIENCE_S, SECRET

ROOT = Path(__file__).parents[2]
LEDGER_TOKEN = "ledger-secret-0123456789abcdef"
INPUT_NANOUSD, OUTPUT_NANOUSD = 1_000, 2_000  # per token, as CONFIG says
MAX_OUTPUT_TOKENS = 100

_MODEL = (
    "  - {{alias: {0}, provider: {1}, model: {2}, max_output_tokens: 100,"
    ' price: {{input_usd_per_mtok: "1", cached_input_usd_per_mtok: "0.5", output_usd_per_mtok: "2"}}}}\n'
)
_PROVIDERS = """\
  demo: {{type: demo}}
  up: {{type: openai, base_url: "{up}/v1", api_key: "env:UP_KEY", retries: 0, on_hang_up: drain, drain_s: 20}}
  cutting: {{type: openai, base_url: "{up}/v1", api_key: "env:UP_KEY", retries: 0, on_hang_up: cancel}}
  patient: {{type: openai, base_url: "{up}/v1", api_key: "env:UP_KEY", retries: 2}}
  away: {{type: openai, base_url: "http://127.0.0.1:9/v1", retries: 0, connect_timeout_s: 2}}
"""
_MODELS = {"demo": "demo", "up": "up", "up-cancel": "cutting", "up-again": "patient", "up-away": "away"}
_CONFIG = """\
version: 1
environment: dev
providers:
{providers}models:
{models}agents:
  - {{id: reader, team: e2e, use_case: tests, owners: {{business: dana}}}}
limits:
  default:
    requests_per_minute: 100000
    concurrency: 1000
    tokens_per_minute: 100000000
    budgets: [{{window: day, usd: "1000"}}, {{window: month, usd: "1000"}}]
{limits}tool_registry: tools_registry
policy: {{path: policies}}
undeclared_client_tools: deny
server: {{shutdown_grace_s: 10}}
"""


def within(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """Ask until the answer is true, and give it; a test that can't wait for an event waits here."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        pause.wait(0.01)
    return found


class Gateway:
    """A gateway and its folder. `start` and `stop`, `kill` as often as wanted; the data stays."""

    def __init__(
        self,
        folder: Path,
        upstream: str,
        ledger: str | None = None,
        *,
        providers: str = "",
        models: dict[str, str] | None = None,
        limits: str = "",
        approvals: str = "",
        preexec: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "var"
        self.config = folder / "gateway.yaml"
        self.url = ""
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "UP_KEY": SECRET,
        }
        if ledger is not None:
            self.environment |= {"LEDGER_URL": ledger, "LEDGER_TOKEN": LEDGER_TOKEN}
        self._preexec = preexec
        self._ready = threading.Event()
        self._reading: threading.Thread | None = None
        self._http = httpx.Client(timeout=PATIENCE_S, trust_env=False)
        self._write(upstream, providers, {**_MODELS, **(models or {})}, limits)
        if approvals:
            self.config.write_text(f"{self.config.read_text()}approvals: {{{approvals}}}\n")

    def _write(self, upstream: str, providers: str, models: dict[str, str], limits: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / "policies", self.folder / "policies")
        (self.folder / "policies" / "grants" / "data.yaml").write_text(
            'agents: {}\nteams: {}\ntiers:\n  standard: {models: ["*"], servers: {ledger: {max_risk: critical}}}\n'
        )
        (self.folder / "tools_registry").mkdir()
        shutil.copy(ROOT / "tools_registry" / "ledger.yaml", self.folder / "tools_registry")
        lines = "".join(_MODEL.format(alias, provider, f"{alias}-served") for alias, provider in models.items())
        self.config.write_text(
            _CONFIG.format(providers=_PROVIDERS.format(up=upstream) + providers, models=lines, limits=limits)
        )

    # ------------------------------------------------------------ the process

    def launch(self) -> subprocess.Popen[str]:
        """Start the process without waiting for anything."""
        self._ready.clear()
        self.url = ""
        command = [sys.executable, "-c", "from gateway.cli import main; main()", "serve", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--config", str(self.config), "--data-dir", str(self.data_dir)],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=self._preexec,
        )
        self._reading = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reading.start()
        return self.process

    def start(self, *, tools: bool = False) -> Gateway:
        """Start, and wait until it is ready; with `tools` until the ledger's tools are there too."""
        process = self.launch()
        assert self._ready.wait(60), "the gateway did not start:\n" + "\n".join(self.lines)
        if not self.url:
            process.wait(PATIENCE_S)
            raise AssertionError("the gateway did not start:\n" + "\n".join(self.lines))
        if tools:
            within(self.tools, "the ledger's tools")
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line.rstrip())
                if '"event":"ready"' in line:
                    self.url = json.loads(line)["url"]
                    self._ready.set()
        self._ready.set()

    def tools(self) -> list[str]:
        """Names of the tools that operators see as usable."""
        return [tool["id"] for tool in self.operator("GET", "/tools").json() if tool["state"] == "live"]

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait_ended(self) -> int:
        """The exit code, once the process has ended and all it said was read."""
        assert self.process is not None
        assert self._reading is not None
        code = self.process.wait(PATIENCE_S)
        self._reading.join(PATIENCE_S)
        return code

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait_ended()

    def kill(self) -> None:
        """What a power cut leaves, but for the disk's own cache."""
        self.signal(signal.SIGKILL)
        self.wait_ended()

    def close(self) -> None:
        self._http.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self._reading is not None:
            self._reading.join(PATIENCE_S)

    # ------------------------------------------------------------ people and agents

    def operator(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Ask the administration as the local operator."""
        token = (self.data_dir / "operator.token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        return self._http.request(method, f"{self.url}/api/v1{path}", headers=headers, json=body)

    def sign_in_link(self, person: str | None = None, next_page: str | None = None) -> str:
        """A sign-in link as `gateway login` prints it; None: the local operator's."""
        made = self.operator("POST", "/sign-in", {"person": person, "next": next_page})
        assert made.status_code == 201, made.text
        return str(made.json()["url"])

    @contextlib.contextmanager
    def browser(self, person: str | None = None) -> Iterator[httpx.Client]:
        """A signed-in browser, as a script makes one: it connects to 127.0.0.1 and names the console's host, which not
        every resolver knows."""
        link = httpx.URL(self.sign_in_link(person))
        headers = {"host": link.netloc.decode()}
        with httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False) as client:
            signed_in = client.post("/console/login", data={"token": link.params["token"]})
            assert signed_in.status_code == 303, signed_in.text
            client.headers["cookie"] = signed_in.headers["set-cookie"].partition(";")[0]  # its jar goes by the URL
            yield client

    def agent(self, name: str, user: str | None = None) -> Agent:
        """A new agent, or a further key of one that is there."""
        made = self.operator("POST", "/agents", {"id": name, "team": "e2e"})
        if made.status_code == 201 and user is None:
            return Agent(self, name, made.json()["key"]["secret"])
        assert made.status_code in (201, 409), made.text
        key = self.operator("POST", f"/agents/{name}/keys", {"user": user})
        assert key.status_code == 201, key.text
        return Agent(self, name, key.json()["secret"])

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self._http.get(self.url + path, headers=headers)

    # ------------------------------------------------------------ what is on disk

    def database(self) -> contextlib.closing[sqlite3.Connection]:
        """The control database, read from outside."""
        return contextlib.closing(sqlite3.connect(f"file:{self.data_dir / 'gateway.db'}?mode=ro", uri=True))

    def leaves(self, agent: str | None = None, type: str | None = None) -> list[dict[str, Any]]:  # noqa: A002
        """The records as they are stored, oldest first."""
        with self.database() as database:
            rows = database.execute("SELECT body FROM leaf ORDER BY idx").fetchall()
        leaves = [json.loads(body) for (body,) in rows]
        return [
            leaf
            for leaf in leaves
            if (agent is None or (leaf["actor"] or {}).get("agent") == agent) and (type is None or leaf["type"] == type)
        ]

    def spend(self, level: str) -> dict[str, int]:
        """Persisted nano-dollars by window."""
        with self.database() as database:
            rows = database.execute("SELECT window, nanousd FROM spend WHERE level = ?", (level,)).fetchall()
        return dict(rows)

    def verified(self) -> Report:
        """The trail as an auditor finds it; fails the test if it is not as it was signed."""
        report = verify_data_dir(self.data_dir)
        assert report.ok, "\n".join(report.lines())
        return report

    @contextlib.contextmanager
    def disk_stalled(self) -> Iterator[None]:
        """Nothing can be committed while this lasts: somebody else holds the database's write lock."""
        with contextlib.closing(sqlite3.connect(self.data_dir / "gateway.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            if other.in_transaction:
                other.execute("ROLLBACK")


class Agent:
    """An agent as the gateway sees one: a key."""

    def __init__(self, gateway: Gateway, name: str, key: str) -> None:
        self.gateway = gateway
        self.name = name
        self.key = key

    def client(self, timeout_s: float = PATIENCE_S) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.gateway.url, headers=headers, timeout=timeout_s, trust_env=False)

    def chat(self, text: str, model: str = "up", **fields: Any) -> httpx.Response:
        """A chat completion; a stream is read to its end."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        with self.client() as client:
            return client.post("/v1/chat/completions", json=body)

    def post(self, path: str, content: bytes, **headers: str) -> httpx.Response:
        with self.client() as client:
            return client.post(path, content=content, headers={"content-type": "application/json", **headers})

    def tool(self, name: str, arguments: dict[str, Any], **meta: Any) -> dict[str, Any]:
        """A tool call through /mcp/ledger with nothing but JSON; the JSON-RPC answer."""
        params = {"name": name, "arguments": arguments, **({"_meta": meta} if meta else {})}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        accept = "application/json, text/event-stream"
        answer = self.post("/mcp/ledger", json.dumps(message).encode(), accept=accept)
        text = answer.text
        if answer.headers["content-type"].startswith("text/event-stream"):
            text = next(line[6:] for line in text.splitlines() if line.startswith("data: {"))
        told: dict[str, Any] = json.loads(text)
        return told

    def pay(self, reference: str, amount_cents: int = 100) -> dict[str, Any]:
        return self.tool("transfer", {"to": "acme-gmbh", "amount_cents": amount_cents, "reference": reference})

    @contextlib.contextmanager
    def raw(
        self, text: str, model: str = "up", *, stream: bool = False, receive_buffer: int = 0
    ) -> Iterator[socket.socket]:
        """A chat completion asked for on a bare socket, so that the test decides what is read and when it ends."""
        body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}).encode()
        host, port = self.gateway.url.removeprefix("http://").split(":")
        with socket.socket() as connection:
            if receive_buffer:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.settimeout(PATIENCE_S)
            connection.connect((host, int(port)))
            connection.sendall(self.head("/v1/chat/completions", len(body)) + body)
            yield connection

    def head(self, path: str, length: int) -> bytes:
        lines = [f"POST {path} HTTP/1.1", f"host: {self.gateway.url.removeprefix('http://')}"]
        lines += [f"authorization: Bearer {self.key}", "content-type: application/json", f"content-length: {length}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    # ------------------------------------------------------------ its records

    def records(self, type: str | None = None) -> list[dict[str, Any]]:  # noqa: A002
        return self.gateway.leaves(self.name, type)

    def results(self, count: int) -> list[dict[str, Any]]:
        """Its results, once there are `count`; they ride the next commit."""
        within(lambda: len(self.records("action.result")) >= count, f"{count} results of {self.name}")
        found = self.records("action.result")
        assert len(found) == count
        return found

    def refusals(self, count: int) -> list[dict[str, Any]]:
        """Its refusals, once there are `count`."""
        within(lambda: len(self.records("action.refused")) >= count, f"{count} refusals of {self.name}")
        found = self.records("action.refused")
        assert len(found) == count
        return found

    @property
    def spent_nanousd(self) -> int:
        """What the persisted day's budget says it spent."""
        spend = self.gateway.spend(f"agent:{self.name}")
        return next((nanousd for window, nanousd in spend.items() if window.startswith("day:")), 0)


class Ledger:
    """The quickstart's ledger as a process; every transfer that truly happened is a row."""

    def __init__(self, db: Path, *faults: str, port: int = 0) -> None:
        self.db = db
        command = [sys.executable, "-m", "gateway.quickstart.ledger", "--db", str(db), "--port", str(port)]
        for fault in faults:
            command += ["--fault", fault]
        self._child = subprocess.Popen(
            [*command, "--until-stdin-closes"],
            cwd=ROOT,
            env={**os.environ, "LEDGER_TOKEN": LEDGER_TOKEN},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._child.stdout is not None
        self.port: int = json.loads(self._child.stdout.readline())["port"]

    def close(self) -> None:
        for stream in (self._child.stdin, self._child.stdout):
            assert stream is not None
            stream.close()
        self._child.wait(PATIENCE_S)

    def transfers(self, reference: str) -> int:
        """How many transfers with this reference happened."""
        with contextlib.closing(sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)) as database:
            (count,) = database.execute("SELECT count(*) FROM transfers WHERE reference = ?", (reference,)).fetchone()
        return int(count)


def payload_bytes(leaf: dict[str, Any]) -> bytes:
    """The commitments of a record, to look for secrets in."""
    return base64.b64encode(json.dumps(leaf["payloads"]).encode())
