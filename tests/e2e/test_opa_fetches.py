"""An OPA server that fetches its policies from the gateway decides by the revision that is in force there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.policy import load
from gateway.quickstart.opa_server import OpaServer
from tests import opa
from tests.e2e.fixtures import MakesHouse

TOKEN = "bundle-token-0123456789"


async def test_opa_fetches_what_is_in_force_here(make_house: MakesHouse, tmp_path: Path) -> None:
    program = opa.program()
    gateway = make_house(ledger=False, start=False).gateway
    wanted = "policy: {path: policies, opa: {bundle_token: 'env:OPA_BUNDLE_TOKEN'}}"
    gateway.config.write_text(gateway.config.read_text().replace("policy: {path: policies}", wanted))
    gateway.environment["OPA_BUNDLE_TOKEN"] = TOKEN
    gateway.start()
    engine, problems = load(gateway.folder / "policies")
    assert engine is not None, problems
    server = OpaServer(program, tmp_path / "opa", fetch_from=gateway.url, token=TOKEN)
    await asyncio.to_thread(server.start)
    try:
        async with opa.asking(server.url, engine) as asked, asyncio.timeout(30):
            while asked.fault() is not None:  # it fetches once a second
                await asked.look()
            assert asked.server_revision == engine.revision
    finally:
        server.stop()
