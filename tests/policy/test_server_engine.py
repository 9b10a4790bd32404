"""The engine that asks an OPA server, against a real one: what it does when the server dies, stalls or is another."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.actions import Decision, Kind
from gateway.clock import ManualClock
from gateway.config import OpaServer as OpaSettings
from gateway.errors import Refusal
from gateway.policy import EmbeddedEngine, load
from gateway.policy.circuit import FAILURES, PAUSE_S
from gateway.policy.server import CONFIRMED_S, ServerEngine
from gateway.quickstart.opa_server import OpaServer
from tests import opa
from tests.policy.asking import answer, asked, engine_of, folder, ledger, shipped
from tests.policy.wire import Wire, wire_to

SMALL = asked(Kind.TOOL_CALL, ledger("transfer"), {"to": "acme-gmbh", "amount_cents": 5})
LARGE = asked(Kind.TOOL_CALL, ledger("transfer"), {"to": "acme-gmbh", "amount_cents": 10_001})
SETTINGS = OpaSettings(timeout_s=5, cross_check=False)
FIVE = "input.action.arguments.amount_cents == 5"
HASTY = OpaSettings(timeout_s=0.15, cross_check=False)


@pytest.fixture(scope="module", name="server")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpaServer]:
    server = opa.serve(tmp_path_factory.mktemp("opa"), shipped())
    yield server
    server.stop()


@pytest.fixture(name="wire")
async def _wire(server: OpaServer) -> AsyncIterator[Wire]:
    async with wire_to(server.port) as wire:
        yield wire


async def refused(engine: ServerEngine, document: bytes = SMALL) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await engine.decide(document)
    assert (caught.value.code, caught.value.http_status, caught.value.retry) == ("policy_unavailable", 503, True)
    assert caught.value.retry_after_s
    return caught.value


def remembers_nothing(engine: ServerEngine) -> ServerEngine:
    engine._memo = None
    return engine


# ---------------------------------------------------------------- when all is well


async def test_it_decides_as_the_embedded_engine_and_says_who_decided(server: OpaServer) -> None:
    here = shipped()
    async with opa.asking(server.url, here, settings=SETTINGS) as engine:
        assert engine.fault() is None
        assert engine.difference() is None
        assert engine.server_revision == engine.revision == here.revision
        for document, effect in ((SMALL, "allow"), (LARGE, "escalate")):
            there, own = await engine.decide(document), here.decide_now(document)
            assert (there.effect, there.rules, there.reasons) == (own.effect, own.rules, own.reasons)
            assert there.effect == effect
            assert there.revision == here.revision
            assert there.input == document
            logged = [json.loads(line) for line in server.log.read_text().splitlines() if there.decision_id in line]
            assert [one["result"]["effect"] for one in logged] == [effect]


async def test_connections_are_kept_and_bounded(wire: Wire) -> None:
    async with opa.asking(wire.url, shipped(), settings=SETTINGS) as engine:
        remembers_nothing(engine)
        for _ in range(50):
            await engine.decide(SMALL)
        assert (wire.connections, wire.questions) == (1, 51)
        await asyncio.gather(*(engine.decide(SMALL) for _ in range(300)))
        assert wire.questions == 351
        assert wire.connections <= 64


async def test_what_was_decided_is_remembered_while_the_server_confirms_the_revision(wire: Wire) -> None:
    clock = ManualClock()
    async with opa.asking(wire.url, shipped(), settings=SETTINGS, clock=clock) as engine:
        first = await engine.decide(SMALL)
        again = asked(Kind.TOOL_CALL, ledger("transfer"), {"to": "acme-gmbh", "amount_cents": 5, "note": "b"})
        asked_before = wire.questions
        second = await engine.decide(again)
        assert wire.questions == asked_before
        assert (second.decision_id, second.input) == (first.decision_id, again)
        clock.advance(CONFIRMED_S + 0.1)
        third = await engine.decide(again)
        assert wire.questions == asked_before + 1
        assert third.decision_id != first.decision_id


# ---------------------------------------------------------------- when the server fails


async def test_killed_it_refuses_at_once_and_comes_back_by_itself(tmp_path: Path) -> None:
    here, clock, told = shipped(), ManualClock(), list[str | None]()
    server = opa.serve(tmp_path, here)
    try:
        async with opa.asking(server.url, here, settings=SETTINGS, clock=clock, on_change=told.append) as engine:
            await engine.decide(SMALL)
            server.kill()
            await refused(engine, LARGE)
            await refused(engine, SMALL)  # what is remembered counts no more either
            for _ in range(FAILURES):
                await refused(engine, LARGE)
            assert "cannot be reached" in str(engine.fault())
            await engine.look()
            server.start()
            await refused(engine)  # nobody is let through before the pause is over
            clock.advance(PAUSE_S)
            assert (await engine.decide(SMALL)).effect == "allow"
            assert engine.fault() is None
            assert [one is None for one in told] == [True, False, True]
    finally:
        server.stop()


async def test_paused_it_waits_no_longer_than_its_time_and_then_not_at_all(tmp_path: Path) -> None:
    here, clock = shipped(), ManualClock()
    server = opa.serve(tmp_path, here)
    try:
        async with opa.asking(server.url, here, clock=clock) as engine:
            engine.follow(here, HASTY)
            server.pause()
            began = time.monotonic()
            await asyncio.gather(*(refused(engine) for _ in range(20)))
            assert time.monotonic() - began < 3
            assert "did not answer within 0.15 s" in str(engine.fault())
            began = time.monotonic()
            for _ in range(20):
                await refused(engine)
            assert time.monotonic() - began < 0.15
            server.resume()
            clock.advance(PAUSE_S)
            engine.follow(here, SETTINGS)
            assert (await engine.decide(SMALL)).effect == "allow"
    finally:
        server.resume()
        server.stop()


async def test_a_slow_server_is_not_asked_again_for_the_same(wire: Wire) -> None:
    async with opa.asking(wire.url, shipped(), settings=SETTINGS) as engine:
        remembers_nothing(engine).follow(engine._own, HASTY)
        before = wire.questions
        wire.is_open.clear()
        await refused(engine)
        assert wire.questions == before + 1
        assert engine.fault() is None  # one late answer is no outage
        wire.is_open.set()
        engine.follow(engine._own, SETTINGS)
        assert (await engine.decide(SMALL)).effect == "allow"


async def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing(wire: Wire) -> None:
    async with opa.asking(wire.url, shipped(), settings=SETTINGS) as engine:
        remembers_nothing(engine)
        wire.cuts = 1
        assert (await engine.decide(SMALL)).effect == "allow"
        assert wire.connections == 2
        wire.drop()
        assert (await engine.decide(SMALL)).effect == "allow"
        wire.cuts = 2  # twice is a failure
        await refused(engine)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"code": "internal_error", "message": "x"}'),
        (500, b'{"code": "internal_error", "message": "x", "errors": [{"code": "eval_cancel_error", "message": "x"}]}'),
        (500, b"oops"),
        (503, b"{}"),
        (502, b"<html>"),
        (401, b'{"code": "unauthorized", "message": "x"}'),
        (403, b"{}"),
        (404, b"{}"),
        (302, b"{}"),
        (400, b'{"code": "invalid_parameter", "message": "x"}'),
        (200, b"not json"),
        (200, b"[]"),
        (200, b""),
        (200, b"\xff"),
        (200, b'{"result": {"effect": "allow", "rules": ["r"], "reasons": ["x"]}}'),  # by which policies?
        (200, b'{"result": {"effect": "deny", "rules": ["r"], "reasons": ["x"]}, "provenance": {"bundles": {}}}'),
        (200, b"{" + b" " * (1024 * 1024) + b"}"),
    ],
)  # fmt: skip
async def test_whatever_is_no_answer_is_a_refusal_and_never_a_deny(wire: Wire, status: int, body: bytes) -> None:
    async with opa.asking(wire.url, shipped(), settings=SETTINGS) as engine:
        remembers_nothing(engine)
        wire.answer(status, body)
        before = wire.questions
        await refused(engine)
        assert wire.questions == before + 1
        assert engine.faults == 0


@pytest.mark.parametrize(
    "result",
    ["", '"result": null,', '"result": {},', '"result": "allow",', f'"result": {answer("maybe")},', '"result": 1,'],
)
async def test_an_answer_of_ours_that_is_no_decision_is_the_policys_fault(wire: Wire, result: str) -> None:
    here, told = shipped(), list[str]()
    async with opa.asking(wire.url, here, settings=SETTINGS, on_fault=told.append) as engine:
        bundles = f'"provenance": {{"bundles": {{"any": {{"revision": "{here.revision}"}}}}}}'
        wire.answer(200, f'{{{result} "decision_id": "d-1", {bundles}}}'.encode())
        decision = await remembers_nothing(engine).decide(SMALL)
        assert (decision.effect, decision.rules, decision.decision_id) == ("deny", ("policy_error",), "d-1")
        assert len(told) == engine.faults == 1


async def test_before_it_was_heard_it_is_not_ready(wire: Wire) -> None:
    wire.answer(200, b"{}")
    async with opa.asking(wire.url, shipped(), settings=SETTINGS) as engine:
        assert "without a bundle of ours" in str(engine.fault())
        wire.reply = None
        await engine.look()
        assert engine.fault() is None


# ---------------------------------------------------------------- when the policy fails


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ('decision := {"effect": trimmed(input.action.arguments.amount_cents)}', ":5"),
        (f"decision := {answer('allow')} if count(input.action.arguments.amount_cents) > 0", ":7"),
        (f"decision := {answer('allow')} if {FIVE}\n\ndecision := {answer('escalate')} if {FIVE}", ":"),
        (f"decision := {answer('allow')} if 1 / (input.action.arguments.amount_cents - 5) > 0", ":7"),
    ],
)  # fmt: skip
async def test_a_fault_while_evaluating_is_a_deny_that_names_the_place(tmp_path: Path, rule: str, line: str) -> None:
    text = f"package gateway\n\ndefault decision := {answer('deny')}\n\ntrimmed(x) := trim_space(x)\n\n{rule}\n"
    here = engine_of(text)
    server = opa.serve(tmp_path, here)
    try:
        async with opa.asking(server.url, here, settings=SETTINGS) as engine:
            there, own = await engine.decide(SMALL), here.decide_now(SMALL)
            assert (there.effect, there.rules) == (own.effect, own.rules) == ("deny", ("policy_error",))
            assert "broken.rego" in there.notes[0]
            assert "broken.rego" not in there.reasons[0]
            assert line in there.notes[0]
            assert engine.fault() is None  # the server is well
    finally:
        server.stop()


# ---------------------------------------------------------------- when the server decides by other policies


def two_revisions(tmp_path: Path) -> tuple[EmbeddedEngine, EmbeddedEngine]:
    engines = []
    for effect in ("allow", "deny"):
        text = (
            f"package gateway\n\ndefault decision := {answer('deny')}\n\ndecision := {answer(effect)} if input.v == 1\n"
        )
        engine, problems = load(folder(tmp_path / effect, {"d.rego": text}))
        assert engine is not None, problems
        engines.append(engine)
    return engines[0], engines[1]


async def test_a_roll_out_is_borne_for_a_while_and_what_was_never_ours_is_not(tmp_path: Path) -> None:
    old, new = two_revisions(tmp_path)
    clock, ours = ManualClock(), {old.revision}
    server = opa.serve(tmp_path / "opa", old)

    async def was_in_force(revision: str) -> bool:
        return revision in ours

    settings = OpaSettings(timeout_s=5, rollout_s=60)
    try:
        async with opa.asking(server.url, old, settings=settings, clock=clock, was_in_force=was_in_force) as engine:
            assert (await engine.decide(SMALL)).effect == "allow"
            engine.follow(new, settings)  # reloaded here, and the server has not fetched it yet
            decision = await engine.decide(SMALL)
            assert (decision.effect, decision.revision) == ("allow", old.revision)
            assert engine.revision == new.revision
            assert engine.fault() is None
            assert old.revision[:12] in str(engine.difference())
            clock.advance(61)
            await refused(engine)
            assert "longer than 60 s" in str(engine.fault())
            assert engine.difference() is None
            ours.clear()
            engine.follow(old, settings)
            assert (await engine.decide(SMALL)).revision == old.revision  # back again
            engine.follow(new, settings)
            await refused(engine)
            assert "no gateway here has put in force" in str(engine.fault())
    finally:
        server.stop()


async def test_a_policy_that_nobody_rolled_out_never_counts(server: OpaServer, tmp_path: Path) -> None:
    own, _ = two_revisions(tmp_path)
    async with opa.asking(server.url, own, settings=SETTINGS) as engine:
        await refused(engine)
        assert "no gateway here has put in force" in str(engine.fault())


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    "url", ["http://", "http://opa:x", "ftp://opa", "http://opa/v1", "http://opa?x=1", "http://a:b@opa"]
)
def test_what_is_no_servers_address_is_told_at_start(url: str) -> None:
    with pytest.raises(Refusal) as caught:
        ServerEngine(url, shipped(), SETTINGS, clock=ManualClock(), was_in_force=opa.never_in_force)
    assert caught.value.code == "invalid_configuration"
    assert "a:b" not in caught.value.message


async def test_the_token_is_shown_and_a_missing_one_is_told(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = OpaSettings.model_validate({"timeout_s": 5, "token": "env:OPA_TOKEN", "cross_check": False})
    monkeypatch.setenv("OPA_TOKEN", "secret-of-opa")
    async with opa.asking(wire.url, shipped(), settings=settings) as engine:
        seen = list[Any]()
        ask = engine._client._request

        def watching(method: str, url: str, **more: Any) -> Any:
            seen.append(more["headers"]["Authorization"])
            return ask(method, url, **more)

        monkeypatch.setattr(engine._client, "_request", watching)
        decision: Decision = await engine.decide(LARGE)
        assert decision.effect == "escalate"
        assert seen == ["Bearer secret-of-opa"]
        monkeypatch.delenv("OPA_TOKEN")
        await refused(engine)
