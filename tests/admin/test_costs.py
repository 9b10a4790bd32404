"""What a provider counted beyond plain tokens, through the whole gateway: recorded, booked, shown and reported.

Runs on both footings: with `make test-shared` on PostgreSQL and Redis.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from gateway.documents import errors
from gateway.identity import Role
from tests.e2e.upstream import Upstream, completion, usage, words
from tests.gateway_house import CONFIG, Running

MODELS = """
  - alias: plain
    provider: up
    model: plain
    max_output_tokens: 100
    price: {input_usd_per_mtok: "1", output_usd_per_mtok: "2"}
  - alias: dear
    provider: up
    model: dear
    max_output_tokens: 100
    price:
      input_usd_per_mtok: "1"
      cached_input_usd_per_mtok: "0.5"
      cache_write_usd_per_mtok: "1.25"
      audio_input_usd_per_mtok: "4"
      output_usd_per_mtok: "2"
      audio_output_usd_per_mtok: "8"
      server_tool_usd: "0.01"
      tiers: {priority: "2"}
      long_context: {above_tokens: 200, input_usd_per_mtok: "3", output_usd_per_mtok: "5"}
agents:"""
LIMITS = 'limits: {default: {tokens_per_minute: 1000000, budgets: [{window: day, usd: "10"}]}}\n'


class House:
    """A gateway whose models live at a scripted provider."""

    def __init__(self, running: Running, upstream: Upstream, agent: httpx.AsyncClient) -> None:
        self.running = running
        self.upstream = upstream
        self.agent = agent
        self._results = 0

    async def chat(self, used: object, *, model: str = "plain", stream: bool = False, **more: Any) -> httpx.Response:
        """A call that the provider answers with this usage; `tier` is the service tier that it names."""
        tier = more.pop("tier", None)
        extra = {} if tier is None else {"service_tier": tier}
        if stream:
            events = [{**event, **extra} for event in words("Hello", used=used)]
            play = self.upstream.streams(*events)
        else:
            play = self.upstream.answers(completion("Hello", used=used, **extra))
        messages = [{"role": "user", "content": play.word}]
        body = {"model": model, "messages": messages, "stream": stream, **more}
        return await self.agent.post("/v1/chat/completions", json=body)

    async def result(self) -> dict[str, Any]:
        """The record of the next result."""
        self._results += 1
        return (await self.running.all_events("action.result", self._results))[0]

    async def left(self) -> int:
        """Nano-dollars of the day's budget."""
        told = (await self.agent.get("/api/v1/me")).json()
        return int(told["limits"]["agent:reader"]["budgets"][0]["left_nanousd"])


@pytest.fixture
async def house(running: Running) -> AsyncIterator[House]:
    with Upstream() as upstream:
        provider = f'  up: {{type: openai, base_url: "{upstream.url}/v1", retries: 0}}\n'
        config = CONFIG.replace("models:\n", f"{provider}models:\n").replace("agents:", MODELS.lstrip("\n"))
        (running.folder / "gateway.yaml").write_text(config + LIMITS)
        (running.folder / "policies" / "grants" / "data.yaml").write_text(
            'agents: {}\nteams: {}\ntiers:\n  standard: {models: ["*"]}\n'
        )
        problems = errors(await running.app.reload("test"))
        assert not problems, problems
        async with await running.agent() as agent:
            yield House(running, upstream, agent)


def counted(given: int, made: int, total: int = 0, **more: Any) -> dict[str, Any]:
    return {**usage(given, made), **({"total_tokens": total} if total else {}), **more}


CASES = [
    ("plain", counted(10, 5), None, 20_000, False),
    ("plain", counted(10, 5, 45), None, 20_000 + 60_000, True),
    ("plain", counted(10, 5, 45, completion_tokens_details={"reasoning_tokens": 30}), None, 80_000, False),
    ("plain", counted(10, 5, prompt_tokens_details={"audio_tokens": 10}), None, 30_000, True),
    ("dear", counted(10, 5, prompt_tokens_details={"audio_tokens": 10}), None, 50_000, False),
    ("dear", counted(10, 5, completion_tokens_details={"audio_tokens": 5}), None, 50_000, False),
    ("dear", counted(10, 5, 23, cache_creation_input_tokens=8), None, 30_000, False),
    ("dear", counted(10, 5, prompt_tokens_details={"cached_tokens": 10}), None, 15_000, False),
    ("dear", counted(10, 5), "priority", 40_000, False),
    ("dear", counted(10, 5), "default", 20_000, False),
    ("dear", counted(201, 5), None, 201 * 3_000 + 5 * 5_000, False),
    ("dear", counted(10, 5, server_tool_use={"web_search_requests": 1}), None, 10_020_000, False),
    ("dear", counted(10, 5, cost=0.5), None, 500_000_000, True),
    ("dear", counted(10, 5, new_tokens=10), None, 20_000 + 10 * 8_000, True),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_is_recorded_is_what_is_booked(house: House, *, stream: bool) -> None:
    before = await house.left()
    for model, used, tier, nanousd, is_estimated in CASES:
        answer = await house.chat(used, model=model, stream=stream, tier=tier)
        assert answer.status_code == 200, answer.text
        cost = (await house.result())["cost"]
        assert (round(float(cost["usd"]) * 1e9), cost["estimated"]) == (nanousd, is_estimated), (used, tier)
        after = await house.left()
        assert before - after == nanousd, (used, tier)
        before = after


async def test_usage_above_what_was_reserved_is_booked_and_reported(house: House) -> None:
    await house.chat(counted(10, 100_000))
    cost = (await house.result())["cost"]
    assert (cost["usd"], cost["estimated"]) == ("0.20001", False)
    assert await house.left() == 10**10 - 200_010_000
    (event,) = await house.running.all_events("reservation.exceeded", 1)
    assert event["labels"]["subject.model"] == "plain"
    assert "0.20001 USD and 100010 tokens; reserved were" in event["labels"]["message"]
    async with house.running.operator() as operator:
        text = (await operator.get("/metrics")).text
    assert 'gateway_reservations_exceeded_total{model="plain"} 1.0' in text


async def test_what_is_estimated_can_be_told_from_what_is_exact(house: House) -> None:
    await house.chat(counted(10, 5))
    await house.result()
    exact = await house.chat(counted(10, 5))
    await house.result()
    guessed = await house.chat(counted(10, 5, 45))
    await house.result()
    async with house.running.operator() as operator:
        text = (await operator.get("/metrics")).text
    assert 'gateway_cost_usd_total{model="plain"} 0.00012' in text
    assert 'gateway_cost_estimated_usd_total{model="plain"} 8e-05' in text
    async with aclosing(await house.running.person("olga", Role.OPERATOR, Role.AUDITOR)) as olga:
        for answer, says in ((exact, False), (guessed, True)):
            page = (await olga.get(f"/console/activity/{answer.headers['x-gateway-action']}")).text
            assert ("estimated" in page) is says
        assert (await olga.get("/console/activity")).text.count("estimated") == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"service_tier": "priority"}, "price.tiers"),
        ({"web_search_options": {}}, "price.server_tool_usd"),
    ],
)
async def test_what_can_not_be_priced_is_refused_under_a_money_budget(
    house: House, fields: dict[str, Any], says: str
) -> None:
    answer = await house.chat(counted(10, 5), **fields)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (402, "false")
    error = answer.json()["error"]
    assert error["code"] == "budget_exhausted"
    assert says in error["message"]
    assert await house.left() == 10**10


async def test_four_large_pictures_at_once_pass_a_rate_of_a_million_tokens(house: House) -> None:
    play = house.upstream.holds(completion("Nice."))
    url = "data:image/jpeg;base64," + base64.b64encode(bytes(range(256)) * 1_600).decode()  # 400 kB

    async def ask() -> httpx.Response:
        parts = [{"type": "text", "text": play.word}, {"type": "image_url", "image_url": {"url": url}}]
        body = {"model": "plain", "messages": [{"role": "user", "content": parts}]}
        return await house.agent.post("/v1/chat/completions", json=body)

    calls = [asyncio.create_task(ask()) for _ in range(4)]
    async with asyncio.timeout(20):
        while len(play.received) < 4 and not any(call.done() for call in calls):
            await asyncio.sleep(0.01)
    play.go.set()
    assert [(await call).status_code for call in calls] == [200] * 4


async def test_a_caller_whom_only_a_reservation_keeps_out_may_come_back_at_once(house: House) -> None:
    play = house.upstream.holds(completion("Done."))
    body = {"model": "plain", "messages": [{"role": "user", "content": play.word}], "max_tokens": 600_000}
    first = asyncio.create_task(house.agent.post("/v1/chat/completions", json=body))
    async with asyncio.timeout(20):
        while not play.received:
            await asyncio.sleep(0.01)
    second = await house.agent.post("/v1/chat/completions", json=body)
    assert (second.status_code, second.headers["retry-after"]) == (429, "1")
    play.go.set()
    assert (await first).status_code == 200
    await house.result()
    assert (await house.agent.post("/v1/chat/completions", json=body)).status_code == 200
