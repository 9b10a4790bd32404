"""A load of every kind of call on two replicas behind their balancer, and all that its answers claimed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.quickstart.topology import Topology

LARGE_CENTS = 10_001
_MCP = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
_IN_A_ROW = 20


@dataclass
class Claims:
    """What the gateway said of what it did."""

    statuses: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)  # actions that were answered as done
    paid: set[str] = field(default_factory=set)  # references whose transfer was answered as made
    asked: set[str] = field(default_factory=set)
    cut: int = 0  # streams that ended in the middle


class Load:
    """Runs until `stop`. Nothing it meets is an error here: the claims are judged afterwards."""

    def __init__(self, topology: Topology, key: str, *, run: str) -> None:
        self.claims = Claims()
        self.good_s: list[float] = []  # when calls of the prober succeeded
        self.bad_s: list[float] = []
        self._topology = topology
        self._run = run
        self._numbers = itertools.count(1)
        limits = httpx.Limits(max_connections=64)
        self._client = httpx.AsyncClient(
            base_url=topology.url,
            headers={"authorization": f"Bearer {key}"},
            timeout=30,
            limits=limits,
            trust_env=False,
        )
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        kinds = (self._models, self._streams, self._small, self._small, self._large, self._probe)
        self._tasks = [asyncio.create_task(kind()) for kind in kinds]
        self._person = asyncio.create_task(self._approve())

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)  # while the person goes on: a call may wait for one
        self._person.cancel()
        await asyncio.gather(self._person, return_exceptions=True)
        await self._client.aclose()

    async def recovered(self, since_s: float, patience_s: float) -> float:
        """Waits until the prober's calls succeed `_IN_A_ROW` times without a failure, from now on; the seconds from the
        first one that failed after `since_s` to the first that succeeded again."""
        now_s = time.monotonic()
        async with asyncio.timeout(patience_s):
            while True:
                bad = [at for at in self.bad_s if at >= since_s]
                good = [at for at in self.good_s if at > max([now_s, *bad])]
                if len(good) >= _IN_A_ROW:
                    return min(at for at in self.good_s if at > bad[-1]) - bad[0] if bad else 0.0
                await asyncio.sleep(0.05)

    # ------------------------------------------------------------ the kinds of calls

    async def _models(self) -> None:
        while not self._stopping.is_set():
            await self._chat(stream=False)
            await self._pause(0.05)

    async def _streams(self) -> None:
        while not self._stopping.is_set():
            await self._chat(stream=True)
            await self._pause(0.1)

    async def _chat(self, *, stream: bool) -> None:
        asked = {"model": "demo", "stream": stream, "messages": [{"role": "user", "content": "Hello!"}]}
        answer = await self._send("/v1/chat/completions", asked)
        if answer is not None and answer.status_code == 200:
            self.claims.acknowledged.append(answer.headers["x-gateway-action"])
            if stream and "[DONE]" not in answer.text:
                self.claims.cut += 1

    async def _small(self) -> None:
        while not self._stopping.is_set():
            await self._transfer(1)
            await self._pause(0.05)

    async def _large(self) -> None:
        while not self._stopping.is_set():
            reference = await self._transfer(LARGE_CENTS)
            await self._transfer(LARGE_CENTS, reference)  # the same again, perhaps at the other replica
            await self._pause(0.2)

    async def _transfer(self, cents: int, reference: str | None = None) -> str:
        reference = reference or f"{self._run}-{next(self._numbers)}"
        self.claims.asked.add(reference)
        answer = await self._call("transfer", {"to": "acme-gmbh", "amount_cents": cents, "reference": reference})
        if answer is not None and '"transfer_id' in answer.text.replace("\\", ""):
            self.claims.paid.add(reference)
            action = answer.headers.get("x-gateway-action")
            if action is not None and cents == 1:
                self.claims.acknowledged.append(action)
        return reference

    async def _probe(self) -> None:
        while not self._stopping.is_set():
            answer = await self._call("get_balance", {})
            good = answer is not None and '"balance_cents' in answer.text.replace("\\", "")
            (self.good_s if good else self.bad_s).append(time.monotonic())
            await self._pause(0.02)

    async def _approve(self) -> None:
        """The person: approves whatever waits, now at one replica, now at the other."""
        for number in itertools.count():
            gateway = self._topology.gateways[number % 2]
            # Where it is down, the other one is asked next.
            with contextlib.suppress(httpx.HTTPError, OSError, KeyError, json.JSONDecodeError):
                await self.approve_all(gateway.url, (gateway.folder / "operator.token").read_text().strip())
            await asyncio.sleep(0.2)

    async def approve_all(self, url: str, token: str) -> int:
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers, timeout=5, trust_env=False) as person:
            found = (await person.get("/approvals", params={"status": "pending"})).json()
            cases: list[dict[str, Any]] = found if isinstance(found, list) else []
            for case in cases:
                vote = {"decision": "approve", "presented_digest": case["presented_digest"]}
                await person.post(f"/approvals/{case['id']}/reviews", json=vote)
            return len(cases)

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
        self.claims.statuses[str(answer.status_code)] += 1
        if answer.status_code in (401, 404, 500) or (answer.status_code == 503 and "retry-after" not in answer.headers):
            self.claims.unexpected.append(f"{answer.status_code} {path} {dict(answer.headers)} {answer.text[:300]}")
        return answer

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
