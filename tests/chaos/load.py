"""A load of every kind of call on two replicas behind their balancer, and all that its answers claimed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from gateway.quickstart.topology import GatewayServer
from tests.chaos.house import MODEL, House

SMALL_CENTS, LARGE_CENTS = 1, 10_001
IN_A_ROW = 20
HELD = "held"
"""In place of a status: a call that waits for a person was told that its gateway stops, and that its case stays."""
_CASE = '"gateway/case":"'
_MCP = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
_AT_ONCE = 16


@dataclass
class Claims:
    """What the gateway said of what it did."""

    statuses: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)  # how answers of tools began that were not the tool's own
    unavailable: Counter[str] = field(default_factory=Counter)  # what 503 said
    unadvised: list[str] = field(default_factory=list)  # 503 that did not say when to come back
    acknowledged: list[str] = field(default_factory=list, repr=False)  # actions that were answered as done
    paid: set[str] = field(default_factory=set, repr=False)  # references whose transfer was answered as made
    asked: dict[str, int] = field(default_factory=dict, repr=False)  # reference to cents
    cut: int = 0  # streams that ended in the middle


class Probe(NamedTuple):
    """A call that needs all the engines, and changes nothing."""

    began_s: float
    ended_s: float
    good: bool


class Load:
    """Runs from `start` to `stop`. Nothing it meets is an error here: the claims are judged afterwards."""

    def __init__(self, house: House, agent: str, key: str) -> None:
        self.agent = agent
        self.claims = Claims()
        self.probes: list[Probe] = []
        self.person_is_away = False
        self._at_the_desk = asyncio.Lock()
        self._house = house
        self._gateways = house.topology.gateways
        self._numbers = itertools.count(1)
        self._client = httpx.AsyncClient(
            base_url=house.topology.url,
            headers={"authorization": f"Bearer {key}"},
            timeout=60,
            limits=httpx.Limits(max_connections=64),
            trust_env=False,
        )
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._person: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with all kinds of calls; a person approves what waits for one."""
        kinds = (self._models, self._streams, self._small, self._small, self._large, self._probe)
        self._tasks = [asyncio.create_task(kind()) for kind in kinds]
        self._person = asyncio.create_task(self._approve())

    async def stop(self) -> None:
        """Let every call end, and leave."""
        self._stopping.set()
        self.person_is_away = False
        await asyncio.gather(*self._tasks)  # while the person goes on: a call may wait for one
        if self._person is not None:
            self._person.cancel()
            await asyncio.gather(self._person, return_exceptions=True)
        await self._client.aclose()

    # ------------------------------------------------------------ how it goes

    async def steady(self, patience_s: float) -> None:
        """Wait until the prober's calls succeed `IN_A_ROW` times without a failure, from now on."""
        began_s = time.monotonic()
        while True:
            since = [probe for probe in self.probes if probe.began_s >= began_s]
            if len(since) >= IN_A_ROW and all(probe.good for probe in since[-IN_A_ROW:]):
                return
            assert time.monotonic() < began_s + patience_s, (self.claims, since[-IN_A_ROW:])
            await asyncio.sleep(0.05)

    def failed_for_s(self, since_s: float) -> float:
        """From the beginning of the first call of the prober that failed to the first that succeeded after the last."""
        after = [probe for probe in self.probes if probe.ended_s >= since_s]
        bad = [probe for probe in after if not probe.good]
        if not bad:
            return 0.0
        back_s = min(probe.ended_s for probe in after if probe.good and probe.began_s >= bad[-1].ended_s)
        return back_s - max(since_s, bad[0].began_s)

    def back_after_s(self, since_s: float) -> float:
        """From a moment until the first of `IN_A_ROW` calls that succeeded without a failure among them."""
        row: list[Probe] = []
        for probe in self.probes:
            if probe.ended_s >= since_s:
                row = [*row, probe] if probe.good else []
            if len(row) == IN_A_ROW:
                break
        return max(0.0, row[0].ended_s - since_s)

    def slowest_s(self, since_s: float) -> float:
        """How long the slowest call of the prober took."""
        return max(probe.ended_s - probe.began_s for probe in self.probes if probe.ended_s >= since_s)

    async def exhaust(self, patience_s: float) -> None:
        """Many model calls at once until the budget refuses each of them."""

        async def until_refused() -> None:
            while (await self._chat(stream=False)) != 402:
                await asyncio.sleep(0)

        async with asyncio.timeout(patience_s):
            await asyncio.gather(*(until_refused() for _ in range(_AT_ONCE)))

    async def paid(self, cents: int, patience_s: float) -> str:
        """One transfer, asked for again and again until it is answered as made: its reference."""
        async with asyncio.timeout(patience_s):
            reference = await self._transfer(cents)
            while reference not in self.claims.paid:
                await self._transfer(cents, reference)
                await asyncio.sleep(0.1)
        return reference

    # ------------------------------------------------------------ the kinds of calls

    async def _models(self) -> None:
        while not self._stopping.is_set():
            await self._chat(stream=False)
            await self._pause(0.05)

    async def _streams(self) -> None:
        while not self._stopping.is_set():
            await self._chat(stream=True)
            await self._pause(0.1)

    async def _chat(self, *, stream: bool) -> int | None:
        prompt = self._house.provider.prompt(self.agent, next(self._numbers))
        asked = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": prompt}]}
        answer = await self._send("/v1/chat/completions", asked)
        if answer is None:
            return None
        if answer.status_code == 200 and stream and "[DONE]" not in answer.text:
            self.claims.cut += 1
        elif answer.status_code == 200:
            self.claims.acknowledged.append(answer.headers["x-gateway-action"])
        return answer.status_code

    async def _small(self) -> None:
        while not self._stopping.is_set():
            await self._transfer(SMALL_CENTS)
            await self._pause(0.05)

    async def _large(self) -> None:
        while not self._stopping.is_set():
            reference = await self._transfer(LARGE_CENTS)
            await self._transfer(LARGE_CENTS, reference)  # the same again, perhaps at the other replica
            await self._pause(0.2)

    async def _transfer(self, cents: int, reference: str | None = None) -> str:
        reference = reference or f"{self.agent}-{next(self._numbers)}"
        self.claims.asked[reference] = cents
        answer = await self._call("transfer", {"to": "acme-gmbh", "amount_cents": cents, "reference": reference})
        if answer is not None and '"transfer_id' in answer.text.replace("\\", ""):
            self.claims.paid.add(reference)
            if cents == SMALL_CENTS:
                self.claims.acknowledged.append(answer.headers["x-gateway-action"])
        elif answer is not None and answer.status_code == 200:
            self.claims.told[_said(answer)[:60]] += 1
        return reference

    async def _probe(self) -> None:
        while not self._stopping.is_set():
            began_s = time.monotonic()
            answer = await self._call("get_balance", {})
            good = answer is not None and '"balance_cents' in answer.text.replace("\\", "")
            self.probes.append(Probe(began_s, time.monotonic(), good))
            await self._pause(0.02)

    # ------------------------------------------------------------ the person

    async def _approve(self) -> None:
        """Approves whatever waits, now at one replica, now at the other."""
        for gateway in itertools.cycle(self._gateways):
            # Where it is down, the other one is asked next.
            with contextlib.suppress(httpx.HTTPError, OSError, KeyError, json.JSONDecodeError):
                async with self._at_the_desk:
                    if not self.person_is_away:
                        await self.approve_all(gateway)
            await asyncio.sleep(0.2)

    async def send_person_away(self) -> None:
        """Nobody approves from here on: a round of approvals that is under way is over first."""
        async with self._at_the_desk:
            self.person_is_away = True

    async def approve_all(self, gateway: GatewayServer) -> int:
        """Approve what waits, at one replica; how many that were."""
        async with person(gateway) as client:
            found = (await client.get("/approvals", params={"status": "pending"})).json()
            cases: list[dict[str, Any]] = found if isinstance(found, list) else []
            for case in cases:
                vote = {"decision": "approve", "presented_digest": case["presented_digest"]}
                await client.post(f"/approvals/{case['id']}/reviews", json=vote)
            return len(cases)

    # ------------------------------------------------------------ the wire

    async def _call(self, tool: str, arguments: dict[str, Any]) -> httpx.Response | None:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        return await self._send("/mcp/ledger", body, _MCP)

    async def _send(
        self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> httpx.Response | None:
        try:
            answer = await self._client.post(path, json=body, headers=headers)
        except httpx.TransportError as error:
            self.claims.statuses[type(error).__name__] += 1
            return None
        is_held = answer.status_code == 503 and '"gateway/code":"stopping"' in answer.text and _CASE in answer.text
        self.claims.statuses[HELD if is_held else str(answer.status_code)] += 1
        if answer.status_code == 503:
            self.claims.unavailable[answer.text[:200]] += 1
            if "retry-after" not in answer.headers:
                self.claims.unadvised.append(f"{path} {answer.text[:300]}")
        return answer

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def person(gateway: GatewayServer) -> httpx.AsyncClient:
    """A person at one of the replicas."""
    token = (gateway.folder / "operator.token").read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=f"{gateway.url}/api/v1", headers=headers, timeout=5, trust_env=False)


def _said(answer: httpx.Response) -> str:
    """What a tool's answer says to the model, or why there is none."""
    text = answer.text.rpartition("data: ")[2] if answer.text.startswith("event:") else answer.text
    with contextlib.suppress(json.JSONDecodeError, KeyError, IndexError, TypeError):
        told: dict[str, Any] = json.loads(text)
        return str(told["result"]["content"][0]["text"] if "result" in told else told["error"]["message"])
    return text
