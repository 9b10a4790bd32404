"""Two replicas behave as one: what is done at one is so at the other, at once, and happens once."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import psycopg
import pytest

from gateway.quickstart.opa_server import find as find_opa
from gateway.quickstart.servers import find_postgres, find_redis
from gateway.quickstart.topology import GatewayServer, Topology
from tests.servers import missing

LARGE_CENTS = 10_001
PATIENCE_S = 30
_MCP = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    for found, name in ((find_postgres(), "postgresql"), (find_redis(), "redis-server"), (find_opa(), "opa")):
        if found is None:
            missing(f"{name} is not here")
    with Topology(tmp_path_factory.mktemp("replicas")) as topology:
        yield topology


def operator(gateway: GatewayServer) -> httpx.Client:
    token = (gateway.folder / "operator.token").read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"{gateway.url}/api/v1", headers=headers, timeout=60, trust_env=False)


def agent(gateway: GatewayServer, key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=gateway.url, headers=headers, timeout=60, trust_env=False)


def new_key(gateway: GatewayServer, agent_id: str = "demo-agent") -> dict[str, Any]:
    with operator(gateway) as person:
        made: dict[str, Any] = person.post(f"/agents/{agent_id}/keys", json={}).raise_for_status().json()
    return made


def transfer(client: httpx.Client, reference: str, cents: int = LARGE_CENTS) -> httpx.Response:
    arguments = {"to": "acme-gmbh", "amount_cents": cents, "reference": reference}
    params = {"name": "transfer", "arguments": arguments, "_meta": {"progressToken": reference}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return client.post("/mcp/ledger", json=body, headers=_MCP)


def transfer_id(answer: httpx.Response) -> str:
    text = answer.text.replace("\\", "")
    assert '"transfer_id":"' in text, text
    return text.partition('"transfer_id":"')[2].partition('"')[0]


def paid(topology: Topology, reference: str) -> int:
    with sqlite3.connect(topology.folder / "ledger.db") as ledger:
        (count,) = ledger.execute("SELECT count(*) FROM transfers WHERE reference = ?", (reference,)).fetchone()
    ledger.close()
    return int(count)


def until(look: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """What `look` gives once it gives anything."""
    end_s = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.02)
    return found


def refuses(client: httpx.Client) -> bool:
    return client.get("/v1/models").status_code == 401


def running(person: httpx.Client) -> list[dict[str, Any]]:
    return [one for one in person.get("/status").json()["replicas"] if one["state"] == "running"]


def command(topology: Topology, gateway: GatewayServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "gateway.cli", *arguments, "--data-dir", str(gateway.folder)],
        env=os.environ | topology.footing,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_case_is_opened_at_one_voted_on_at_the_other_and_waited_for_at_both(replicas: Topology) -> None:
    one, other = replicas.gateways
    key = new_key(one)["secret"]
    with agent(one, key) as here, agent(other, key) as there, ThreadPoolExecutor(2) as pool:
        first = pool.submit(transfer, here, "one-case")
        with operator(other) as person:
            (case,) = until(lambda: person.get("/approvals", params={"status": "pending"}).json())
            again = pool.submit(transfer, there, "one-case")  # the identical call attaches, at the other replica
            until(lambda: _waiting(other))
            vote = {"decision": "approve", "presented_digest": case["presented_digest"]}
            assert person.post(f"/approvals/{case['id']}/reviews", json=vote).status_code == 200
        assert transfer_id(first.result(60)) == transfer_id(again.result(60))
        assert paid(replicas, "one-case") == 1
        with operator(one) as person:
            shown = person.get(f"/approvals/{case['id']}").json()
        assert (shown["state"], len(shown["attempts"])) == ("succeeded", 1)
        # And later, at either, the stored result.
        assert transfer_id(transfer(there, "one-case")) == transfer_id(first.result())
        assert paid(replicas, "one-case") == 1


def _types(person: httpx.Client, action: str) -> list[str]:
    found: list[dict[str, Any]] = person.get("/audit/records", params={"action": action}).json()
    return [record["type"] for record in found]


def _waiting(gateway: GatewayServer) -> bool:
    text = httpx.get(f"{gateway.url}/metrics", trust_env=False, timeout=20).text
    return "gateway_approvals_waiting_callers 1.0" in text


def test_identical_allowed_calls_at_both_happen_once_and_are_told_the_same(replicas: Topology) -> None:
    """The ledger's database is held, so that the first one is still at work when the others come."""
    key = new_key(replicas.gateways[0])["secret"]
    clients = [agent(gateway, key) for gateway in replicas.gateways for _ in range(2)]
    with sqlite3.connect(replicas.folder / "ledger.db", isolation_level=None) as ledger, ThreadPoolExecutor(4) as pool:
        ledger.execute("BEGIN IMMEDIATE")
        asked = [pool.submit(transfer, client, "the-same", 1) for client in clients]
        with psycopg.connect(replicas.postgres.url, autocommit=True) as database:
            until(lambda: database.execute(b"SELECT 1 FROM open_intent WHERE digest IS NOT NULL").fetchone())
        time.sleep(2)  # the others are there by now; the ledger waits for its database for longer than that
        ledger.execute("ROLLBACK")
        assert len({transfer_id(one.result(60)) for one in asked}) == 1
    ledger.close()
    assert paid(replicas, "the-same") == 1
    for client in clients:
        client.close()


def test_keys_people_and_sign_ins_of_one_are_good_at_the_other_at_once(replicas: Topology) -> None:
    one, other = replicas.gateways
    for _ in range(5):  # never a 401 for what was just made
        made = new_key(one)
        with agent(other, made["secret"]) as there:
            assert there.get("/v1/models").status_code == 200
            with operator(one) as person:
                assert person.delete(f"/agents/demo-agent/keys/{made['id']}").status_code == 200
            until(partial(refuses, there), 1.0)
    with operator(one) as person:
        assert person.post("/agents", json={"id": "late-comer", "team": "finance"}).status_code == 201
    with operator(other) as person:
        assert "late-comer" in {found["id"] for found in person.get("/agents").json()}
    signed_in = command(replicas, one, "login", "--json")
    link = json.loads(signed_in.stdout)["url"]
    link = httpx.URL(link)
    assert (link.host.endswith(".localhost"), link.port) == (True, replicas.balancer.port)  # the same at both
    headers = {"host": link.netloc.decode()}
    with httpx.Client(base_url=other.url, trust_env=False, timeout=20, headers=headers) as browser:
        done = browser.post("/console/login", data={"token": link.params["token"]})
        assert done.status_code == 303
    headers["cookie"] = done.headers["set-cookie"].partition(";")[0]
    with httpx.Client(base_url=one.url, trust_env=False, timeout=20, headers=headers) as browser:
        assert browser.get("/console/overview").status_code == 200
        assert browser.get("/console/approvals").status_code == 200


def test_the_kill_switch_holds_on_all_within_a_second_and_the_drill_measures_it(replicas: Topology) -> None:
    done = command(replicas, replicas.gateways[0], "drill", "demo-agent", "--model", "demo", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 2
    for row in rows:
        assert row["refused_after_ms"] <= 1000
        assert row["stream_ended_after_ms"] <= 1000
    with agent(replicas.gateways[1], new_key(replicas.gateways[0])["secret"]) as resumed:
        until(lambda: resumed.get("/v1/models").status_code == 200, 5.0)


def test_status_names_the_replicas_and_who_lags(replicas: Topology) -> None:
    one, other = replicas.gateways
    for gateway in (one, other):
        with operator(gateway) as person:
            found = until(partial(running, person))
        assert {r["url"] for r in found} == {one.url, other.url}
        assert [r["lags"] for r in found] == [[], []]
        assert len({r["policy"] for r in found}) == 1
    # One is told of another configuration and the other is not, as in the middle of a change.
    config = replicas.folder / "gateway.yaml"
    assert other.pid is not None
    other.pause()
    try:
        config.write_text(config.read_text().replace("requests_per_minute: 600", "requests_per_minute: 601"))
        with operator(one) as person:
            assert person.post("/reload").status_code == 200
            lagging = until(
                lambda: [r["url"] for r in person.get("/status").json()["replicas"] if "configuration" in r["lags"]],
                4.0,
            )
        assert lagging == [other.url]
    finally:
        other.resume()
    with operator(one) as person:
        until(lambda: all(not r["lags"] for r in person.get("/status").json()["replicas"] if r["state"] == "running"))


def test_what_one_did_is_found_at_the_other_and_the_trail_of_both_verifies(replicas: Topology) -> None:
    one, other = replicas.gateways
    with agent(one, new_key(one)["secret"]) as here:
        asked = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}
        action = here.post("/v1/chat/completions", json=asked).headers["x-gateway-action"]
    with operator(other) as person:
        until(lambda: _types(person, action) == ["action.result", "action.intent"])  # written right after the answer
    verified = command(replicas, other, "audit", "verify", "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["verdict"] == "operator-signed"
    with psycopg.connect(replicas.postgres.url) as database:
        writers = database.execute(
            b"SELECT DISTINCT convert_from(body, 'UTF8')::json -> 'writer' ->> 'id' FROM leaf"
        ).fetchall()
    assert len(writers) >= 2
