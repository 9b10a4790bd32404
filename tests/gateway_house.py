"""A whole gateway in the test's own process, over real files; imported by the conftest of who needs it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import App
from gateway.audit.view import Filter
from gateway.identity import Role
from gateway.process import Process
from tests.footing import PUBLIC_URL, process_in

ROOT = Path(__file__).parents[1]

CONFIG = """
version: 1
environment: dev
providers:
  demo: {type: demo}
models:
  - {alias: demo, provider: demo, model: demo, owner: dana, price: {input_usd_per_mtok: "1", output_usd_per_mtok: "2"}}
agents:
  - {id: reader, team: finance, owners: {business: dana}}
  - {id: writer, team: finance}
tool_registry: tools_registry
policy: {path: policies}
"""


@dataclass
class Running:
    """A whole gateway in this process, and clients of it."""

    app: App
    folder: Path

    @property
    def operator_token(self) -> str:
        return (self.app.process.data_dir / "operator.token").read_text().strip()

    def client(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(app=self.app.asgi)
        return httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL, headers=headers)

    def operator(self) -> httpx.AsyncClient:
        return self.client(self.operator_token)

    async def person(self, person_id: str, *roles: Role) -> httpx.AsyncClient:
        """A signed-in browser of a new person, with its cookie. Nobody else had a hand in the sign-in."""
        people = self.app.registry.people
        await people.add(person_id, name=person_id.title(), roles=roles, by="operator")
        link, _ = await people.make_link(person_id, by=person_id)
        browser = self.client()
        assert (await use_link(browser, link)).status_code == 303
        return browser

    async def agent(self, agent_id: str = "reader", user: str | None = None) -> httpx.AsyncClient:
        _, secret = await self.app.registry.keys.create(agent_id, person="operator", user=user)
        return self.client(secret)

    async def ask(self, agent: httpx.AsyncClient, content: str = "Hello") -> str:
        """A model call; the action's id."""
        body = {"model": "demo", "messages": [{"role": "user", "content": content}]}
        answer = await agent.post("/v1/chat/completions", json=body)
        return str(answer.headers["x-gateway-action"])

    async def all_events(self, type: str, count: int) -> list[dict[str, Any]]:  # noqa: A002
        """The records of a type, once there are `count`: refusals ride the next commit."""
        async with asyncio.timeout(20):
            while len(found := await self.events(type)) < count:
                await asyncio.sleep(0.01)
        assert len(found) == count
        return found

    async def events(self, type: str) -> list[dict[str, Any]]:  # noqa: A002
        return (await self.app.log.query(Filter(type=type, limit=100))).records


async def use_link(browser: httpx.AsyncClient, link: str) -> httpx.Response:
    """Send the form that a sign-in link shows; `link` is its token."""
    return await browser.post("/console/login", data={"token": link, "next": ""})


@pytest.fixture(name="running")
async def a_running_gateway(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    async with open_gateway(tmp_path, process_in(tmp_path, request)) as running:
        yield running


@asynccontextmanager
async def open_gateway(folder: Path, process: Process) -> AsyncIterator[Running]:
    """A gateway over `folder`, which is made ready for it the first time."""
    if not (folder / "policies").exists():
        shutil.copytree(ROOT / "policies", folder / "policies")
        (folder / "tools_registry").mkdir()
        (folder / "gateway.yaml").write_text(CONFIG)
    app = App(process)
    await app.start()
    running = Running(app, folder)
    try:
        yield running
    finally:
        await running.app.stop(1)  # the one that runs by then
