"""The process: start, stop, signals, reload, and a disk that says no."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.fixtures import House, MakesHouse
from tests.e2e.gateway_process import Gateway, within
from tests.e2e.upstream import Exchange, Play, chunk, completion, words

# ---------------------------------------------------------------- stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_open_streams_and_flushes_and_signs_the_log(
    make_house: MakesHouse, number: signal.Signals
) -> None:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway.start()
    agent = gateway.agent("streaming")

    def player(exchange: Exchange, play: Play) -> None:
        exchange.begin()
        events = words("one ", "two ", "three")
        for event in events[:3]:
            exchange.event(event)
        play.wait_go()
        for event in events[3:]:
            exchange.event(event)
        exchange.send(b"data: [DONE]\n\n")
        exchange.end()

    play = house.upstream.plays(player)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(agent.chat, play.word, stream=True)
        play.wait_arrived()
        within(lambda: "gateway_streams_open 1.0" in gateway.get("/metrics").text, "the open stream")
        gateway.signal(number)
        within(lambda: any("Shutting down" in line for line in gateway.lines), "the stop")
        play.go.set()
        text = answer.result().text
    assert "three" in text
    assert "data: [DONE]" in text
    assert gateway.wait_ended() == 0
    (result,) = agent.results(1)
    assert (result["result"]["status"], result["cost"]["estimated"]) == ("succeeded", False)
    assert gateway.leaves()[-1]["type"] == "gateway.stop"
    report = gateway.verified()
    assert (report.unsigned, report.interrupted) == (0, 0)
    assert not (gateway.data_dir / "gateway.json").exists()
    gateway.start()
    assert gateway.leaves(type="gateway.start")[-1]["labels"]["previous"] == "clean"


def test_a_stream_that_outlasts_the_grace_is_ended_and_charged(make_house: MakesHouse) -> None:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway
    gateway.config.write_text(gateway.config.read_text().replace("shutdown_grace_s: 10", "shutdown_grace_s: 1"))
    gateway.start()
    agent = gateway.agent("endless")

    def player(exchange: Exchange, play: Play) -> None:
        exchange.begin()
        exchange.event(chunk({"content": "one "}))
        play.client_left = exchange.client_left()

    play = house.upstream.plays(player)
    with agent.raw(play.word, stream=True) as connection:
        while b"one " not in connection.recv(65536):
            pass
        began_s = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began_s < 6
    play.wait_ended()
    assert play.client_left
    (result,) = agent.results(1)
    assert (result["result"]["status"], result["cost"]["estimated"]) == ("cancelled", True)
    assert gateway.verified().unsigned == 0


def test_two_gateways_can_not_have_one_data_directory(make_house: MakesHouse) -> None:
    house = make_house(start=False)
    gateway = house.gateway.start()
    second = Gateway(gateway.folder.parent / "second", house.upstream.url)
    second.data_dir = gateway.data_dir
    try:
        second.launch()
        assert second.wait_ended() == 1
        assert any("in use by another gateway" in line for line in second.lines)
    finally:
        second.close()
    assert gateway.agent("still-served").chat("Hello").status_code == 200


def test_a_record_edited_while_the_gateway_was_stopped_is_told_after_start(make_house: MakesHouse) -> None:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway.start()
    agent = gateway.agent("honest")
    for _ in range(3):
        assert agent.chat("Hello").status_code == 200
    assert gateway.stop() == 0
    with contextlib.closing(sqlite3.connect(gateway.data_dir / "gateway.db")) as database:
        database.execute("UPDATE leaf SET body = replace(body, 'honest', 'forged') WHERE idx = 3")
        database.commit()
    gateway.start()

    def told() -> str | None:
        found = {one["id"]: one["reason"] for one in gateway.operator("GET", "/status").json()["components"]}
        return str(found["audit_trail"]) if found["audit_trail"] else None

    within(told, "the finding")
    assert "record 3 is not" in str(told())
    ready = gateway.get("/readyz")
    assert (ready.status_code, ready.json()["degraded"]) == (200, ["audit_trail"])
    assert gateway.agent("served").chat("Hello").status_code == 200
    assert gateway.stop() == 0


# ---------------------------------------------------------------- start and reload

TYPO = ("tools_registry/ledger.yaml", "risk: high", "rsik: high", "Did you mean")
BROKEN = [
    pytest.param(*TYPO, id="a typo in the registry"),
    pytest.param("tools_registry/ledger.yaml", "effect: write", "effect: wirte", "write", id="a word it has not"),
    pytest.param("policies/ledger/ledger.rego", "ledger_transfer if {", "ledger_transfer if {{", "", id="no Rego"),
    pytest.param("policies/grants/data.yaml", "tiers:", "tiers: [", "", id="no YAML"),
    pytest.param("gateway.yaml", "concurrency: 1000", "concurency: 1000", "concurrency", id="a typo in a limit"),
    pytest.param("gateway.yaml", "provider: up,", "provider: upp,", "up", id="an unknown provider"),
    pytest.param("gateway.yaml", "env:UP_KEY", "env:NO_SUCH_KEY", "NO_SUCH_KEY", id="a secret that is not there"),
]


def line_of(text: str, needle: str) -> int:
    return text[: text.index(needle)].count("\n") + 1


@pytest.mark.parametrize(("name", "right", "wrong", "hint"), [BROKEN[0], BROKEN[2], BROKEN[5]])
def test_a_broken_file_refuses_the_start_with_file_line_and_mend(
    make_house: MakesHouse, name: str, right: str, wrong: str, hint: str
) -> None:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway
    file: Path = gateway.folder / name
    text = file.read_text().replace(right, wrong, 1)
    file.write_text(text)
    gateway.launch()
    assert gateway.wait_ended() == 1
    said = "\n".join(gateway.lines)
    assert f"{file}:" in said
    assert hint in said
    assert "Traceback" not in said
    if hint:
        assert f"{file}:{line_of(text, wrong)}:" in said
    assert not (gateway.data_dir / "gateway.json").exists()
    # Mended, it starts, and nothing tells of a crash.
    file.write_text(text.replace(wrong, right, 1))
    gateway.start()
    assert gateway.leaves(type="gateway.start")[-1]["labels"]["previous"] in ("none", "clean")


def test_a_reload_with_any_broken_file_changes_nothing_and_says_why(make_house: MakesHouse) -> None:
    house = make_house()
    gateway = house.gateway
    agent = gateway.agent("steady")
    revision = gateway.operator("GET", "/status").json()["policy"]["revision"]
    for case in BROKEN:
        name, right, wrong, hint = (str(value) for value in case.values)
        file = gateway.folder / name
        text = file.read_text()
        file.write_text(text.replace(right, wrong, 1))
        answer = gateway.operator("POST", "/reload")
        assert answer.status_code == 422, name
        assert answer.json()["code"] == "invalid_configuration"
        assert name.rpartition("/")[2] in answer.text
        assert hint in answer.text
        state = gateway.operator("GET", "/status").json()
        assert state["state"] == "degraded"
        assert state["policy"]["revision"] == revision
        assert agent.chat("Hello").status_code == 200
        assert "result" in agent.pay("steady")
        file.write_text(text)
        assert gateway.operator("POST", "/reload").status_code == 200
    conditions = {one["id"]: one["state"] for one in gateway.operator("GET", "/status").json()["components"]}
    assert conditions["configuration"] == "ok"
    assert agent.chat("Hello").status_code == 200


@pytest.mark.parametrize("how", ["SIGHUP", "file change", "POST"])
def test_a_reload_puts_new_models_policies_and_agents_in_force(make_house: MakesHouse, how: str) -> None:
    house = make_house(ledger=False, start=False)
    gateway = house.gateway.start()
    agent = gateway.agent("follower")
    assert agent.chat("Hello", model="new").status_code == 404
    held = house.upstream.holds(completion("From before."))
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(agent.chat, held.word)
        held.wait_arrived()
        data = gateway.folder / "policies" / "grants" / "data.yaml"
        data.write_text(data.read_text().replace('models: ["*"]', "models: [new]"))
        gateway.config.write_text(gateway.config.read_text().replace("alias: up,", "alias: new,"))
        if how == "SIGHUP":
            gateway.signal(signal.SIGHUP)
        elif how == "POST":
            assert gateway.operator("POST", "/reload").status_code == 200
        within(lambda: agent.chat("Hello", model="new").status_code == 200, "the reload")
        held.go.set()
        assert before.result().status_code == 200  # what ran under the old state ends in peace
    assert agent.chat("Hello", model="up").status_code == 404
    assert agent.chat("Hello", model="demo").status_code == 404  # there, but no longer given
    assert len(gateway.leaves(type="policy.activated")) >= 2


# ---------------------------------------------------------------- a disk that says no


def test_a_full_disk_latches_and_a_restart_reconciles(make_house: MakesHouse) -> None:
    """RLIMIT_FSIZE stands for the full disk: from a size on, every write to a file fails."""

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error of the write, not the end of the process
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))

    house = make_house(start=False, preexec=small_files)
    gateway = house.gateway.start(tools=True)
    agent = gateway.agent("filler")
    text = "x" * 150_000
    refused = None
    for number in range(40):
        answer = agent.chat(text)
        if answer.status_code != 200:
            refused = answer
            break
        assert number < 39, "the disk never filled"
    assert refused is not None
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "audit_unavailable")
    asked = len(house.upstream.received)
    assert agent.chat("Hello").status_code == 503  # a small one would fit, and is refused all the same
    assert agent.chat("Hello", stream=True).status_code == 503
    assert "audit_unavailable" in str(agent.pay("full"))
    assert house.ledger.transfers("full") == 0
    assert len(house.upstream.received) == asked
    ready = gateway.get("/readyz")
    assert ready.status_code == 503
    assert "audit" in ready.json()["missing"]
    assert gateway.get("/livez").status_code == 200
    gateway.verified()
    gateway.stop()
    # There is room again.
    gateway._preexec = None
    gateway.start(tools=True)
    assert agent.chat("Hello").status_code == 200
    gaps = gateway.leaves(type="audit.gap")
    assert len(gaps) == 1
    assert int(gaps[0]["labels"]["refused"]) >= 4
    intents, results = agent.records("action.intent"), agent.results(len(agent.records("action.intent")))
    assert {one["id"] for one in intents} == {one["refs"]["intent"] for one in results}
    assert house.ledger.transfers("full") == 0
    assert gateway.stop() == 0
    assert gateway.verified().unsigned == 0


def test_a_disk_that_hangs_refuses_and_recovers(house: House) -> None:
    agent = house.agent("stalled")
    with house.gateway.disk_stalled():
        answer = agent.chat("Hello")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "audit_unavailable")
    play = house.upstream.answers(completion("Fine."))
    within(lambda: agent.chat(play.word).status_code == 200, "the disk is back")
    within(lambda: house.gateway.operator("GET", "/status").json()["audit"]["open_intents"] == 0, "no open intent")
    intents = agent.records("action.intent")
    assert len(agent.results(len(intents))) == len(intents)
    house.gateway.verified()


# ---------------------------------------------------------------- while much goes on


def test_what_an_agent_is_told_of_its_tools_is_not_a_permission(house: House) -> None:
    with house.agent("curious").client() as client:
        tools = {one["tool"]: one for one in client.get("/api/v1/me").json()["tools"]}
    assert tools["transfer"] == {
        "id": "ledger__transfer",
        "server": "ledger",
        "tool": "transfer",
        "listed": True,
        "effect": "write",
        "risk": tools["transfer"]["risk"],
    }


def test_readiness_is_told_and_nothing_hangs_while_a_tool_server_is_away(make_house: MakesHouse) -> None:
    house = make_house(start=False)
    house.ledger.close()
    gateway = house.gateway.start()
    agent = gateway.agent("patient")
    assert gateway.get("/readyz").status_code == 200
    told = agent.pay("away")
    assert "error" in told or told["result"]["isError"]
    assert agent.chat("Hello").status_code == 200
    state = within(
        lambda: (found := gateway.operator("GET", "/status").json())["state"] == "degraded" and found, "degraded"
    )
    assert "ledger" in json.dumps([one for one in state["components"] if one["state"] == "degraded"])


@pytest.mark.drill
def test_reloads_under_load_lose_no_call(make_house: MakesHouse) -> None:
    house = make_house()
    gateway = house.gateway
    agent = gateway.agent("busy")
    over = threading.Event()

    def work() -> int:
        done = 0
        while not over.is_set():
            assert agent.chat("Hello").status_code == 200
            done += 1
        return done

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(work) for _ in range(4)]
        for number in range(30):
            text = gateway.config.read_text()
            gateway.config.write_text(f"{text}# {number}\n")
            assert gateway.operator("POST", "/reload").status_code == 200
        over.set()
        total = sum(one.result() for one in running)
    agent.results(total)
    gateway.verified()
