"""What agents declare is noted within bounds, at the cost of a look-up, and is there again after a restart."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.actions import Action, Agent, Caller, DeclaredTool, Kind, Session, Trace
from gateway.catalog import SeenTool, SeenTools, seen, seen_tool
from gateway.clock import ManualClock
from gateway.doors.openai.request import declared_tools, parse_request
from gateway.errors import Refusal
from gateway.store import Writer, schema

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


@pytest.fixture(scope="session", name="migrated")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "gateway.db"
    assert schema.migrate(path)
    return path


@pytest.fixture(name="writer")
async def _writer(migrated: Path, tmp_path: Path) -> AsyncIterator[Writer]:
    shutil.copy(migrated, tmp_path / "gateway.db")
    writer = Writer.open(tmp_path)
    yield writer
    await writer.close()


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    return ManualClock()


class Looks:
    """Reads what calls declare, and counts how often it was asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, action: Action) -> list[DeclaredTool]:
        self.count += 1
        return declared_tools(action.body)


def function(name: str, description: str = "", parameters: Any = SCHEMA) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def call(clock: ManualClock, *tools: dict[str, Any], agent: str = "reader", **more: Any) -> Action:
    """An allowed model call, as its door made it."""
    body: dict[str, Any] = {"model": "demo", "messages": [], **more}
    if tools:
        body["tools"] = tools
    request = parse_request(msgspec.json.encode(body))
    return Action(
        id="a",
        kind=Kind.MODEL_INVOKE,
        door="openai.chat",
        caller=Caller(Agent(id=agent), None, "k", "key"),
        session=Session("s", "minted"),
        trace=Trace("0" * 32, "0" * 16),
        target="demo",
        request_id="r",
        received_ns=clock.now_ns(),
        arguments=request.arguments,
        body=request.body,
    )


def make(writer: Writer, clock: ManualClock, *described: str, looks: Looks | None = None) -> SeenTools:
    return SeenTools(store=writer, read=looks or Looks(), described=lambda tool: tool.name in described, clock=clock)


def told(found: list[SeenTool]) -> dict[str, int]:
    return {one.id: one.count for one in found}


async def test_tools_are_noted_by_agent_and_name_with_what_the_agent_said(writer: Writer, clock: ManualClock) -> None:
    noted = make(writer, clock)
    noted.note(call(clock, function("send_mail", "Sends a mail."), function("look")))
    noted.note(call(clock, function("send_mail"), agent="writer"))
    assert told(noted.all()) == {"reader:look": 1, "reader:send_mail": 1, "writer:send_mail": 1}
    (mail,) = [one for one in noted.all("reader") if one.name == "send_mail"]
    assert (mail.description, mail.parameters) == ("Sends a mail.", SCHEMA)
    assert mail.first_ns == mail.last_ns == clock.now_ns()
    assert noted.all("nobody") == []


async def test_every_way_to_declare_is_read_and_a_providers_own_tools_are_not(
    writer: Writer, clock: ManualClock
) -> None:
    noted = make(writer, clock)
    custom = {"type": "custom", "custom": {"name": "apply", "description": "d", "format": {"type": "text"}}}
    noted.note(
        call(
            clock,
            {"function": {"name": "bare"}},
            custom,
            {"type": "web_search"},
            {"type": "web_search_preview", "web_search_preview": {"name": "not_ours"}},
            functions=[{"name": "old", "parameters": SCHEMA}],
        )
    )
    found = {one.name: one.parameters for one in noted.all()}
    assert found == {
        "bare": {},
        "apply": {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]},
        "old": SCHEMA,
    }


async def test_what_a_manifest_describes_is_left_out_also_when_it_comes_later(
    writer: Writer, clock: ManualClock
) -> None:
    described: set[str] = {"Bash"}
    noted = SeenTools(store=writer, read=Looks(), described=lambda tool: tool.name in described, clock=clock)
    noted.note(call(clock, function("Bash"), function("mine")))
    assert told(noted.all()) == {"reader:mine": 1}
    described.add("mine")
    assert noted.all() == []
    described.clear()  # the manifest is gone again
    clock.advance(seen.LOOK_AGAIN_S)
    noted.note(call(clock, function("Bash"), function("mine")))
    assert told(noted.all()) == {"reader:Bash": 1, "reader:mine": 2}


async def test_calls_without_tools_and_known_ones_are_not_read(writer: Writer, clock: ManualClock) -> None:
    looks = Looks()
    noted = make(writer, clock, looks=looks)
    noted.note(call(clock))
    noted.note(call(clock, tools=[]))
    assert looks.count == 0
    for _ in range(10):
        noted.note(call(clock, function("a"), function("b")))
        clock.advance(1)
    assert looks.count == 1
    noted.note(call(clock, function("a")))
    assert looks.count == 2
    assert told(noted.all()) == {"reader:a": 11, "reader:b": 10}
    (a, b) = noted.all()
    assert (a.last_ns - b.last_ns) == 1_000_000_000


async def test_a_definition_that_changes_is_seen_within_a_minute(writer: Writer, clock: ManualClock) -> None:
    noted = make(writer, clock)
    noted.note(call(clock, function("a", "old")))
    noted.note(call(clock, function("a", "new")))
    assert noted.all()[0].description == "old"
    clock.advance(seen.LOOK_AGAIN_S)
    noted.note(call(clock, function("a", "new", {"type": "object"})))
    (one,) = noted.all()
    assert (one.description, one.parameters, one.count) == ("new", {"type": "object"}, 3)


async def test_no_more_than_so_many_names_are_kept_and_it_is_told_once(
    writer: Writer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(seen.log, "warning", lambda event, **_: warned.append(event))
    noted = make(writer, clock)
    noted.note(call(clock, *[function(f"t{number}") for number in range(seen.MAX_PER_AGENT + 10)]))
    noted.note(call(clock, function("late")))
    assert len(noted.all("reader")) == seen.MAX_PER_AGENT
    for agent in range(4):
        noted.note(call(clock, *[function(f"t{number}") for number in range(500)], agent=f"a{agent}"))
    assert len(noted.all()) == seen.MAX_IN_ALL
    assert warned == ["seen_tools_full"] * 2  # once for each agent that met a bound
    noted.note(call(clock, function("t1"), function("late")))  # those that are kept are still counted
    assert {one.name: one.count for one in noted.all("reader")}["t1"] == 2


async def test_many_sets_of_names_take_no_more_memory_and_lose_no_count(
    writer: Writer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "MAX_SETS", 4)
    noted = make(writer, clock)
    for number in range(20):
        for _ in range(3):
            noted.note(call(clock, function("same"), function(f"t{number}")))
    assert len(noted._sets) <= 4
    assert {one.name: one.count for one in noted.all()}["same"] == 60


async def test_names_that_no_tool_may_have_are_left_out(writer: Writer, clock: ManualClock) -> None:
    def reads(_action: Action) -> list[DeclaredTool]:
        return [DeclaredTool(name, "", None) for name in ("n" * (seen_tool.MAX_NAME + 1), "", "a")]

    noted = SeenTools(store=writer, read=reads, described=lambda _: False, clock=clock)
    noted.note(call(clock, function("a")))
    assert [one.name for one in noted.all()] == ["a"]


async def test_an_agents_words_are_cut(writer: Writer, clock: ManualClock) -> None:
    noted = make(writer, clock)
    large = {f"argument_{number}": {"description": "x" * 1000} for number in range(200)}
    parameters = {"type": "object", "properties": large, "required": ["argument_3", "argument_199", 5]}
    noted.note(
        call(
            clock,
            function("large", "d" * 5000, parameters),
            function("list", 7, ["no schema"]),  # type: ignore[arg-type]
        )
    )
    found = {one.name: one for one in noted.all()}
    assert set(found) == {"large", "list"}
    assert len(found["large"].description) == seen_tool.MAX_DESCRIPTION
    assert len(found["large"].schema) <= seen_tool.MAX_SCHEMA_BYTES
    kept = found["large"].parameters
    assert list(kept["properties"]) == [f"argument_{number}" for number in range(seen_tool.MAX_ARGUMENTS)]
    assert kept["required"] == ["argument_3"]
    assert (found["list"].description, found["list"].parameters) == ("", {})


async def test_a_reader_that_fails_fails_no_action(writer: Writer, clock: ManualClock) -> None:
    def fails(_action: Action) -> list[DeclaredTool]:
        raise ValueError("no")

    noted = SeenTools(store=writer, read=fails, described=lambda _: False, clock=clock)
    noted.note(call(clock, function("a")))
    assert noted.all() == []


async def test_what_was_seen_is_there_after_a_restart(writer: Writer, clock: ManualClock) -> None:
    noted = make(writer, clock)
    hostile = "\u202e\x1b[2J'); DROP TABLE seen_tool; --\x00"
    noted.note(call(clock, function("a", hostile), *[function(f"t{number}") for number in range(120)]))
    await noted.save()
    clock.advance(5)
    noted.note(call(clock, function("a", hostile), *[function(f"t{number}") for number in range(120)]))
    await noted.save()
    again = make(writer, clock)
    await again.load()
    assert again.all() == noted.all()
    assert len(again.all()) == 121
    assert again.all()[0].description == hostile.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    again.note(call(clock, function("a")))
    assert told(again.all())["reader:a"] == 3


async def test_nothing_is_written_where_nothing_changed_and_many_calls_are_one_write(
    writer: Writer, clock: ManualClock
) -> None:
    noted = make(writer, clock)
    await noted.save()
    before = writer.commits
    for _ in range(1000):
        noted.note(call(clock, function("a")))
    assert writer.commits == before
    await noted.save()
    await noted.save()
    assert writer.commits == before + 1


async def test_a_store_that_refuses_fails_nothing_and_gets_it_later(writer: Writer, clock: ManualClock) -> None:
    class Refuses:
        """A writer that the disk has failed, until it has not."""

        broken = True

        async def read(self, fn: Any) -> Any:
            raise sqlite3.OperationalError("no such table: seen_tool")

        async def write(self, fn: Any) -> Any:
            if self.broken:
                raise Refusal("audit_unavailable", "the disk said no")
            return await writer.write(fn)

    store = Refuses()
    noted = SeenTools(store=store, read=Looks(), described=lambda _: False, clock=clock)
    await noted.load()
    noted.note(call(clock, function("a"), function("b")))
    await noted.save()
    noted.note(call(clock, function("a"), function("b")))
    store.broken = False
    await noted.save()
    again = make(writer, clock)
    await again.load()
    assert told(again.all()) == {"reader:a": 2, "reader:b": 2}


async def test_what_nobody_declares_for_a_long_time_is_forgotten(writer: Writer, clock: ManualClock) -> None:
    noted = make(writer, clock)
    noted.note(call(clock, function("old")))
    await noted.save()
    clock.advance(seen.FORGET_AFTER_S + 1)
    noted.note(call(clock, function("new")))
    await noted.save()
    assert told(noted.all()) == {"reader:new": 1}
    again = make(writer, clock)
    await again.load()
    assert told(again.all()) == {"reader:new": 1}


async def test_a_known_call_costs_microseconds(writer: Writer, clock: ManualClock) -> None:
    noted = make(writer, clock)
    known = call(clock, *[function(f"tool_{number}", "d" * 1000) for number in range(20)])
    noted.note(known)
    best_s = float("inf")
    for _ in range(5):
        began_s = time.perf_counter()
        for _ in range(1000):
            noted.note(known)
        best_s = min(best_s, (time.perf_counter() - began_s) / 1000)
    assert best_s < 50e-6, f"{best_s * 1e6:.1f} us"  # about 1 us; a look costs some 200
