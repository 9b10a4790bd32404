"""`make run`: the gateway with the quickstart's configuration, its ledger beside it, and everything ready to paste.

Quick and harmless to run again: the ledger's money, the agent's key and the log stay as they were. What only a look at
one's own machine should have (tools that no manifest declares are let through) is in DATA_DIR/quickstart.yaml, so that
gateway.yaml can be copied as it is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from gateway.app import App
from gateway.errors import Refusal
from gateway.identity.people import LOCAL_OPERATOR
from gateway.process import Process
from gateway.quickstart import note
from gateway.quickstart.ledger_child import ledger
from gateway.quickstart.page import AGENT, page
from gateway.serve import serve

DEFAULTS = "quickstart.yaml"
_DEFAULTS = """\
# Written by `make run`. These settings apply where gateway.yaml says nothing about them.
undeclared_client_tools: observe # allow and record tools that no manifest declares; without this file it is deny
"""


def run(process: Process) -> None:
    """Start the ledger, serve, and print what to paste once ready. Raises Refusal if the gateway can't start."""
    process.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The ledger wants a credential that is the gateway's, never an agent's: a new one for each run.
    token = os.environ["LEDGER_TOKEN"] = secrets.token_urlsafe(32)
    with ledger(process.data_dir, token) as url:
        os.environ["LEDGER_URL"] = url  # the ledger's manifest refers to it
        if process.log_level == "info":  # what a newcomer should read is the page below, not log lines between it
            process = process.model_copy(update={"log_level": "warning"})
        serve(process, on_ready=_welcome, defaults=defaults_in(process.data_dir))


def defaults_in(data_dir: Path) -> Path:
    """The settings that only the quickstart has, in a file of its own beside the data: kept where it is there."""
    path = data_dir / DEFAULTS
    if not path.exists():
        path.write_text(_DEFAULTS)
    return path


async def _welcome(app: App, url: str) -> None:
    data_dir = app.process.data_dir
    key = await _key(app, note.read(data_dir).get("GATEWAY_KEY"))
    link, _ = await app.registry.people.make_link(LOCAL_OPERATOR, by=None)
    console = app.site.sign_in_url(link)
    shown = {"GATEWAY_URL": url, "GATEWAY_KEY": key, "GATEWAY_CONSOLE": console}
    note.write(data_dir, shown | {"GATEWAY_DATA_DIR": str(data_dir.absolute())})
    print(page(url, key, console, data_dir), flush=True)  # noqa: T201 - this is what the command is for


async def _key(app: App, old: str | None) -> str:
    """The key of the last run if it is still good, else a new one."""
    with contextlib.suppress(Refusal):
        if old and app.registry.identity.identify([(b"x-api-key", old.encode())]).agent.id == AGENT:
            return old
    _, secret = await app.registry.keys.create(AGENT, person=None)
    return secret
