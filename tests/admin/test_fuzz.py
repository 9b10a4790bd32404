"""Every parameter and body field of the administration API, from its own OpenAPI document, with values that hurt.

No answer is a 500, and every refusal is a problem with a sentence. `GATEWAY_TEST_FOOTING=shared` runs it on PostgreSQL,
whose integers end at 63 bits and whose texts have no NUL.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest

from gateway.identity import Role

from ..bank_house import Bank
from ..gateway_house import Running

API = "/api/v1"
NO_DATES = (
    "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "9999-12-31T23:59:60Z",
    "2026-02-30T00:00:00Z",
    "2026-01-01T00:00:00+24:00",
    "2026-01-01T00:00:00+01:02:03.5",
    "2026-13-01T00:00:00Z",
    "\uff12\uff10\uff12\uff16-01-01T00:00:00Z",
    "99999999999999999999",
    "-99999999999999999999",
    "1e400",
    "-1e17",
    "nan",
    "-inf",
    "now",
    "\x00",
    "",
)
EDGE_DATES = (
    "0001-01-01T00:00:00Z",
    "0999-12-31T23:59:59.999999Z",
    "1969-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.999999999Z",
)
NUMBERS = ("-1", "0", str(2**31), str(2**63), str(2**64), "9" * 400, "1e400", "nan", "-inf", "\u0663", "\u00b2", "0x10")
TEXTS = ("", "\x00", "a\x00b", "\ud800", "\U0010ffff", "'; --", "%", "9" * 18, "9" * 25, "x" * 5000)
JSON_VALUES: tuple[Any, ...] = (-1, 2**63, 2**64, 10**400, 1e17, 1e300, True, None, [], {}, [None], {"\x00": "\x00"})
IN_FLIGHT = 16


class Probe(NamedTuple):
    method: str
    url: str
    body: dict[str, Any]
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed

    def __str__(self) -> str:
        return f"{self.method} {self.url[:200]} {str(self.body)[:200]} {self.headers}"


def encoded(value: str) -> str:
    """For a URL, half a character included."""
    return quote(value.encode("utf-8", "surrogatepass"), safe="")


def probes(document: dict[str, Any]) -> Iterator[Probe]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield from of_operation(document, path, method.upper(), operation)


def of_operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> Iterator[Probe]:
    parameters = operation.get("parameters", [])
    body = sample(document, operation)
    for one in parameters:
        for value in values_of(one.get("schema", {})):
            if one["in"] == "path":
                yield Probe(method, filled(path, {one["name"]: value or " "}), body)
            elif one["in"] == "query":
                yield Probe(method, f"{filled(path, {})}?{one['name']}={encoded(value)}", body)
            elif value.isascii() and value.isprintable():
                yield Probe(method, filled(path, {}), body, {one["name"]: value})
    for name in body:
        for wrong in (*JSON_VALUES, *TEXTS, *NO_DATES[:2]):
            yield Probe(method, filled(path, {}), {**body, name: wrong})


def values_of(schema: dict[str, Any]) -> tuple[str, ...]:
    """Those that are near to what a parameter takes."""
    kinds = [schema, *schema.get("anyOf", ())]
    if any(kind.get("format") == "date-time" for kind in kinds):
        return NO_DATES + EDGE_DATES
    return NUMBERS + TEXTS[:3] if any(kind.get("type") in ("integer", "number") for kind in kinds) else TEXTS


def filled(path: str, values: dict[str, str]) -> str:
    parts = [part[1:-1] if part.startswith("{") else None for part in path.split("/")]
    given = [
        part if name is None else encoded(values.get(name, "x"))
        for part, name in zip(path.split("/"), parts, strict=True)
    ]
    return "/".join(given)


def sample(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """A body that is well formed, with every field that there is; empty where the operation takes none."""
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return {}
    schema = document["components"]["schemas"][content["application/json"]["schema"]["$ref"].rpartition("/")[2]]
    good = {"decision": "approve", "presented_digest": f"sha256:{'0' * 64}", "outcome": "failed", "kind": "tool.call"}
    return {name: good.get(name, "x") for name in schema["properties"]}


async def refused_well(client: httpx.AsyncClient, probe: Probe) -> str | None:
    """What is wrong with the answer to a probe."""
    headers = {**probe.headers, "content-type": "application/json"}
    answer = await client.request(
        probe.method, probe.url, content=json.dumps(probe.body) if probe.body else None, headers=headers
    )
    if answer.status_code < 400:
        return None
    problem = answer.headers["content-type"] == "application/problem+json" and answer.json()
    if answer.status_code < 500 and problem and problem["detail"].strip() and "Traceback" not in answer.text:
        return None
    return f"{answer.status_code} {answer.text[:200]} from {probe}"


async def clients(running: Running, stack: AsyncExitStack) -> dict[str, httpx.AsyncClient]:
    """By the first part of the path: agents ask for themselves, people for the rest."""
    operator, agent = running.operator(), await running.agent()
    reviewer = await running.person("rita", *Role)
    reviewer.headers["origin"] = "http://gateway.test"
    for client in (operator, reviewer, agent):
        stack.push_async_callback(client.aclose)
    return {"me": agent, "actions": agent, "approvals": reviewer, "": operator}


def client_for(by_path: dict[str, httpx.AsyncClient], probe: Probe) -> httpx.AsyncClient:
    first = probe.url.removeprefix(f"{API}/").split("?")[0].split("/")[0]
    return by_path.get(first, by_path[""])


async def test_no_parameter_of_the_api_ends_in_a_fault(bank: Bank) -> None:
    async with AsyncExitStack() as stack:
        by_path = await clients(bank.running, stack)
        document = (await by_path[""].get(f"{API}/openapi.json")).json()
        asked = [probe for probe in probes(document) if not probe.url.startswith(f"{API}/approvals/stream")]
        faults = []
        for start in range(0, len(asked), IN_FLIGHT):
            some = [refused_well(client_for(by_path, probe), probe) for probe in asked[start : start + IN_FLIGHT]]
            faults += [fault for fault in await asyncio.gather(*some) if fault]
    assert len(asked) > 1000
    assert not faults, "\n".join(faults)


async def test_no_parameter_of_the_console_ends_in_a_fault(running: Running) -> None:
    browser = await running.person("rita", *Role)
    pages = {"approvals": ("status", "agent", "cursor"), "activity": ("agent", "effect", "kind", "cursor")}
    asked = [f"{page}?{name}={encoded(value)}" for page, names in pages.items() for name in names for value in TEXTS]
    asked += [f"{page}/{encoded(value)}" for page in pages for value in TEXTS if value]
    async with aclosing(browser):
        answers = [await browser.get(f"/console/{url}") for url in asked]
    assert [str(one.url) for one in answers if one.status_code >= 500] == []


@pytest.mark.parametrize("name", ["since", "until"])
async def test_what_is_no_date_is_refused_with_a_sentence(running: Running, name: str) -> None:
    async with running.operator() as operator:
        for value in NO_DATES:
            answer = await operator.get(f"{API}/audit/records?{name}={encoded(value)}")
            assert answer.status_code == 400, (value, answer.text)
            assert answer.json()["code"] == "malformed"


async def test_the_first_and_the_last_moments_there_are_hold_as_bounds(running: Running) -> None:
    async with running.operator() as operator:
        for value in EDGE_DATES:
            since = (await operator.get(f"{API}/audit/records", params={"since": value})).json()
            until = (await operator.get(f"{API}/audit/records", params={"until": value})).json()
            earlier, later = (since, until) if value < "2000" else (until, since)
            assert earlier, value
            assert later == [], value
