"""The bank's counter: what agents ask for there, what reviewers see and say, and what the trail has of it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from gateway.audit.check import verify
from gateway.audit.view import Filter
from gateway.documents import errors
from tests.bank_house import LARGE, Bank
from tests.footing import placed_and_signed
from tests.gateway_house import CONFIG

API = "/api/v1/approvals"
CLAIM = "execute_on: claim, "
PATIENCE_S = 20.0


class Counter:
    """A bank whose configuration and rules a test changes while a case is open."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.app = bank.running.app
        self.people = bank.running.app.registry.people

    # ------------------------------------------------------------ the world changes

    async def configure(self, approvals: str = CLAIM, *, hold_s: float = 0.2, config: str = CONFIG) -> None:
        """Put another gateway.yaml in force; `approvals` are settings of that room, with a comma after each."""
        text = f"{config}approvals: {{{approvals}hold_s: {hold_s}, groups: [treasury, risk]}}\n"
        await self._put("gateway.yaml", text)

    async def rule(self, text: str) -> None:
        """Put a further policy in force; none at all where `text` is empty."""
        await self._put("policies/extra.rego", f"package gateway\n\n{text}")

    async def asks(self, obligation: str) -> None:
        """Policy asks more of people from now on."""
        await self.rule(
            'escalate contains {"rule": "more_eyes", "reason": "Large sums need more eyes.",\n'
            f'"obligations": [{{"approval": {obligation}}}]}} if {{\n\tledger_transfer\n}}\n'
        )

    async def edit(self, name: str, old: str, new: str) -> None:
        """Change a file of the configuration, and have it read."""
        text = (self.bank.running.folder / name).read_text()
        assert old in text
        await self._put(name, text.replace(old, new))

    async def _put(self, name: str, text: str) -> None:
        (self.bank.running.folder / name).write_text(text)
        assert errors(await self.app.reload("test")) == []

    # ------------------------------------------------------------ people

    async def shown(self, person: httpx.AsyncClient, case_id: str) -> dict[str, Any]:
        answer = await person.get(f"{API}/{case_id}")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    async def vote(
        self, person: httpx.AsyncClient, case_id: str, decision: str = "approve", **said: Any
    ) -> httpx.Response:
        """A vote on what the person is shown now."""
        digest = (await self.shown(person, case_id))["presented_digest"]
        guidance = {"guidance": "Not now."} if decision == "deny" else {}
        vote = {"decision": decision, "presented_digest": digest, **guidance, **said}
        return await person.post(f"{API}/{case_id}/reviews", json=vote)

    async def approve(self, person: httpx.AsyncClient, case_id: str) -> str:
        """The state of the case with this vote."""
        voted = await self.vote(person, case_id)
        assert voted.status_code == 200, voted.text
        return str(voted.json()["state"])

    # ------------------------------------------------------------ agents

    async def approved(self, agent: httpx.AsyncClient, person: httpx.AsyncClient) -> str:
        """A case that the person has approved, and that nobody has claimed yet."""
        case_id = await self.bank.case(agent)
        assert await self.approve(person, case_id) == "approved"
        return case_id

    async def call(
        self, agent: httpx.AsyncClient, name: str = "ledger__transfer", /, **arguments: Any
    ) -> dict[str, Any]:
        """A tool call, by default the large transfer; the JSON-RPC answer, whatever its HTTP status."""
        params = {"name": name, "arguments": arguments or LARGE}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-11-25",
            "host": "127.0.0.1",
        }
        told: dict[str, Any] = (await agent.post("/mcp", json=body, headers=headers)).json()
        return told

    async def held(self, agent: httpx.AsyncClient) -> tuple[asyncio.Task[dict[str, Any]], str]:
        """A caller that waits, and its case."""
        call = asyncio.create_task(self.call(agent))
        async with asyncio.timeout(PATIENCE_S):
            while not self.app.approvals.waiting_callers:
                await asyncio.sleep(0.01)
        return call, (await self.app.approvals.find(status="open", limit=1)).cases[0].id

    async def status(self, agent: httpx.AsyncClient, case_id: str, wait_s: float = 5) -> dict[str, Any]:
        """What `gateway__approval_status` says; asking claims what was approved."""
        answer = await self.call(agent, "gateway__approval_status", case_id=case_id, wait_s=wait_s)
        told: dict[str, Any] = answer["result"]["structuredContent"]
        return told

    # ------------------------------------------------------------ the trail

    async def records(self, case_id: str) -> list[dict[str, Any]]:
        """Oldest first."""
        return (await self.app.log.query(Filter(case=case_id, limit=100))).records[::-1]

    async def went(self, case_id: str) -> list[str]:
        """What happened to a case, in order: its own records and those of what it was carried out by."""
        of_case = ("action.requested", "case.", "action.intent", "action.result")
        return [record["type"] for record in await self.records(case_id) if record["type"].startswith(of_case)]

    async def last(self, case_id: str, type: str) -> dict[str, Any]:  # noqa: A002
        """The newest record of a case of this type."""
        found = [record for record in await self.records(case_id) if record["type"] == type]
        assert found, await self.went(case_id)
        return found[-1]

    async def until(self, case_id: str, state: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (await self.app.approvals.case(case_id)).state != state:
                await asyncio.sleep(0.01)

    async def verified(self) -> None:
        """The trail, and the cases held against it, as an auditor finds them."""
        await placed_and_signed(self.app.log)
        report = await asyncio.to_thread(verify, self.app.footing.source())
        assert report.ok, "\n".join(report.lines())


def refused(answer: dict[str, Any]) -> tuple[str, str]:
    """What a caller who gets no result hears: the code, and the words for its model."""
    result = answer["result"]
    assert result["isError"], result
    return result["_meta"]["gateway/code"], result["content"][0]["text"]


def is_paid(answer: dict[str, Any]) -> bool:
    """Whether the answer is that of the ledger."""
    return "transfer_id" in (answer.get("result", {}).get("structuredContent") or {})
