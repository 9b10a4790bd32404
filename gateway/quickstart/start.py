"""`make run`: the gateway with the quickstart's configuration, its ledger beside it, and everything ready to paste.

Quick and harmless to run again: the ledger's money, the agent's key and the log stay as they were.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.app import App
from gateway.errors import Refusal
from gateway.identity.people import LOCAL_OPERATOR
from gateway.process import Process, child_environment
from gateway.serve import serve

AGENT = "demo-agent"
NOTE = "quickstart.env"


def run(process: Process) -> None:
    """Start the ledger, serve, and print what to paste once ready. Raises Refusal if the gateway can't start."""
    process.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The ledger wants a credential that is the gateway's, never an agent's: a new one for each run.
    os.environ["LEDGER_TOKEN"] = secrets.token_urlsafe(32)
    with _ledger(process.data_dir) as url:
        os.environ["LEDGER_URL"] = url  # the ledger's manifest refers to it
        if process.log_level == "info":  # what a newcomer should read is the page below, not log lines between it
            process = process.model_copy(update={"log_level": "warning"})
        serve(process, on_ready=_welcome)


@contextlib.contextmanager
def _ledger(data_dir: Path) -> Iterator[str]:
    """The ledger as a process of its own; it ends when we do, since its standard input then closes."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "gateway.quickstart.ledger",
        "--db",
        str(data_dir / "ledger.db"),
        "--port",
        "0",
    ]
    child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [*command, "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment() | {"LEDGER_TOKEN": os.environ["LEDGER_TOKEN"]},
        start_new_session=True,  # Ctrl-C is for the gateway, which still talks to the ledger while it stops
    )
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        if not line:
            raise Refusal("internal", "The quickstart's ledger did not start; its error stands above.")
        yield str(json.loads(line)["url"])
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
        child.kill()
        child.wait()
        child.stdout.close()
        assert child.stdin is not None
        child.stdin.close()


async def _welcome(app: App, url: str) -> None:
    note = app.process.data_dir / NOTE
    key = await _key(app, note)
    link, _ = await app.registry.people.make_link(LOCAL_OPERATOR, by=None)
    console = f"{url}/console/login?token={link}"
    _write(note, {"GATEWAY_URL": url, "GATEWAY_KEY": key, "GATEWAY_CONSOLE": console})
    print(_page(url, key, console, app.process.data_dir), flush=True)  # noqa: T201 - this is what the command is for


async def _key(app: App, note: Path) -> str:
    """The key of the last run if it is still good, else a new one."""
    old = _old_key(note)
    with contextlib.suppress(Refusal):
        if old and app.registry.identity.identify([(b"x-api-key", old.encode())]).agent.id == AGENT:
            return old
    _, secret = await app.registry.keys.create(AGENT, person=None)
    return secret


def _old_key(note: Path) -> str | None:
    with contextlib.suppress(OSError):
        for line in note.read_text().splitlines():
            name, _, value = line.partition("=")
            if name == "GATEWAY_KEY":
                return value
    return None


def _write(note: Path, values: dict[str, str]) -> None:
    new = note.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
    new.replace(note)


def _page(url: str, key: str, console: str, data_dir: Path) -> str:
    # The commands below look for the default one; they are pasted into another terminal, without our environment.
    where = "" if data_dir == Process.model_fields["data_dir"].default else f" --data-dir {shlex.quote(str(data_dir))}"
    return f"""
The Agent Governance Gateway is ready on {url}

  Console (sign in once with this link)
    {console}

  Agent key of {AGENT}
    {key}

Paste into another terminal, in this folder:

  1. A model call, with curl
    curl -s {url}/v1/chat/completions -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \
-d '{{"model": "demo", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

  2. The same with the official OpenAI SDK
    .venv/bin/python -c 'import openai; c = openai.OpenAI(base_url="{url}/v1", api_key="{key}"); \
print(c.chat.completions.create(model="demo", messages=[{{"role": "user", "content": "Hello!"}}])\
.choices[0].message.content)'

  3. A tool call, with the official MCP SDK
    .venv/bin/python -m gateway.quickstart.try_mcp {url}/mcp/ledger {key} \
transfer '{{"to": "acme-gmbh", "amount_cents": 2500, "reference": "INV-1"}}'

What happened is in the console, and in the trail: .venv/bin/gateway audit query{where}; \
.venv/bin/gateway audit verify{where}
Stop with Ctrl-C.
"""
