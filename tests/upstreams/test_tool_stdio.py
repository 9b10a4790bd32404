"""Tool servers as children: whatever a child does, calls end, nothing is sent twice, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from gateway.upstreams import mcp_stdio
from gateway.upstreams.lines import Lines
from gateway.upstreams.tool_servers import StdioServerConfig
from tests.upstreams.tool_world import World, child


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def children() -> set[int]:
    """Processes of ours, zombies too."""
    me = str(os.getpid())
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "stat").read_text().rsplit(")", 1)[1].split()[1] == me:
                found.add(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", ["good", "modern"])
async def test_both_eras_list_all_pages_and_keep_unknown_fields(how: str) -> None:
    async with World() as world:
        await world.connect(child(how))
        assert world.names() == ["echo", "env", "act"]
        assert world.learned[-1][1][0]["x-vendor"] == {"kept": [1, 2.5, None]}
        result = await world.call("echo", a={"deep": [1, None, "ü"]})
        said = json.loads(result["content"][0]["text"])
        assert said["arguments"] == {"a": {"deep": [1, None, "ü"]}}
        assert result["content"][0]["x-odd"] == 1
        assert ("io.modelcontextprotocol/protocolVersion" in said.get("_meta", {})) == (how == "modern")


async def test_the_bytes_of_a_result_are_passed_on_as_they_came() -> None:
    async with World() as world:
        await world.connect(child())
        assert b'"x-unknown": {"n": 12345678901234567890}' in (await world.reply("echo")).body


async def test_meta_of_the_caller_is_passed_on_but_not_what_the_protocol_reserves() -> None:
    async with World() as world:
        await world.connect(child())
        meta = {"traceparent": "00-1", "progressToken": 1, "io.modelcontextprotocol/clientInfo": {"name": "evil"}}
        reply = await world.servers.call("s", "echo", {}, meta=meta)
        assert json.loads(json.loads(reply.body)["content"][0]["text"])["_meta"] == {"traceparent": "00-1"}


async def test_a_child_has_the_environment_of_its_manifest_and_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    monkeypatch.setenv("ITS_TOKEN", "for the child")
    async with World() as world:
        await world.connect(child(TOKEN="env:ITS_TOKEN"))
        env = json.loads((await world.call("env"))["content"][0]["text"])
    assert env.pop("TOKEN") == "[redacted]"  # it has it, and can't give it away
    own = {"HOME", "TMPDIR", "TMP", "TEMP"}  # folders that it has to itself
    assert set(env) <= {"PATH", "LC_CTYPE", *own}  # Python sets LC_CTYPE for itself


async def test_a_child_that_dies_mid_call_leaves_the_call_unknown_and_is_started_again() -> None:
    async with World() as world:
        await world.connect(child())
        refusal = await world.refused("act", how="die")
        assert (refusal.code, refusal.detail["dispatched"]) == ("upstream_failed", "unknown")
        assert "exit status 3" in refusal.message
        world.reports.clear()
        await world.until(lambda: "connected" in world.states())
        assert await world.call("echo")


async def test_all_calls_in_flight_end_when_the_child_dies() -> None:
    async with World() as world:
        await world.connect(child())
        waiting = [asyncio.create_task(world.refused("act", how="never")) for _ in range(20)]
        await asyncio.sleep(0)
        await world.refused("act", how="die")
        assert {refusal.detail["dispatched"] for refusal in await asyncio.gather(*waiting)} == {"unknown"}


@pytest.mark.parametrize("how", ["close", "stuck"])
async def test_a_child_that_answers_nothing_any_more_is_started_again(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The event loop of production leaves the child a second handle on its output, so that closing one is not seen.
    monkeypatch.setattr(mcp_stdio, "ALIVE_TIMEOUT_S", 0.2)
    async with World() as world:
        await world.connect(child())
        assert (await world.refused("act", timeout_s=0.2, how=how)).detail["dispatched"] == "unknown"
        world.reports.clear()
        await world.until(lambda: "connected" in world.states())
        assert await world.call("echo")


async def test_a_child_with_one_slow_tool_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        await world.connect(child())
        await world.refused("act", timeout_s=0.1, how="never")
        doubts = world.servers._links["s"]._server._doubts  # type: ignore[union-attr]
        await doubts
        assert await world.call("echo")
        assert world.states().count("connecting") == 1


async def test_while_there_is_no_connection_a_call_is_refused_and_certainly_not_sent() -> None:
    async with World() as world:
        world.servers.configure([child("exit")])
        await world.until(lambda: "unreachable" in world.states())
        refusal = await world.refused("echo")
        assert (refusal.code, refusal.detail["dispatched"]) == ("upstream_failed", "no")
        assert "is not connected" in refusal.message
        assert "try again" in refusal.message


async def test_a_child_that_ends_at_once_is_tried_again_ever_more_slowly() -> None:
    async with World() as world:
        world.servers.configure([child("exit")])
        await world.until(lambda: world.states().count("unreachable") >= 3)
        assert "connected" not in world.states()


@pytest.mark.parametrize("command", [("/nowhere/at/all",), ("env:NOT_SET_ANYWHERE",), (str(Path(__file__)),)])
async def test_a_command_that_cannot_run_is_a_state_not_a_crash(command: tuple[str, ...]) -> None:
    async with World() as world:
        world.servers.configure([StdioServerConfig("s", command, (), None, 10.0)])
        await world.until(lambda: "unreachable" in world.states())


async def test_garbage_on_its_output_is_ignored() -> None:
    async with World() as world:
        await world.connect(child())
        assert (await world.call("act", how="garbage"))["content"][0]["text"] == "after the garbage"


async def test_answers_with_another_id_are_nobodys() -> None:
    async with World() as world:
        await world.connect(child())
        assert (await world.call("act", how="wrong-id"))["content"][0]["text"] == "for me"


async def test_a_giant_answer_fails_its_own_call_only() -> None:
    async with World() as world:
        await world.connect(child())
        refusal = await world.refused("act", how="giant")
        assert ("larger than" in refusal.message, refusal.detail["dispatched"]) == (True, "unknown")
        assert await world.call("echo")
        assert world.states().count("connected") == 1


async def test_a_giant_answer_that_does_not_say_to_whom_ends_the_child() -> None:
    async with World() as world:
        await world.connect(child())
        assert "a line of more than" in (await world.refused("act", how="giant-nameless")).message
        world.reports.clear()
        await world.until(lambda: "connected" in world.states())


async def test_a_slow_tool_ends_in_a_timeout_and_is_told_that_nobody_waits() -> None:
    async with World() as world:
        await world.connect(child())
        refusal = await world.refused("act", timeout_s=0.2, how="never")
        assert (refusal.code, refusal.detail["dispatched"]) == ("upstream_timeout", "unknown")
        waiting = asyncio.create_task(world.call("act", how="cancelled"))
        await world.refused("act", timeout_s=0.2, how="never")
        # The child reads the second `act` itself, so the cancellation may come as its second line; either is fine.
        assert "content" in await waiting


async def test_an_error_of_the_server_is_told_without_its_secrets() -> None:
    async with World() as world:
        await world.connect(child())
        refusal = await world.refused("act", how="error")
        assert "bad arguments" in refusal.message
        assert "abcdef123456" not in refusal.message
        assert (refusal.detail["answered"], refusal.detail["upstream_code"]) == ("yes", "-32602")


@pytest.mark.parametrize("how", ["neither", "not-a-result"])
async def test_an_answer_that_is_no_result_is_a_failure(how: str) -> None:
    async with World() as world:
        await world.connect(child())
        assert (await world.refused("act", how=how)).detail["dispatched"] == "unknown"
        assert await world.call("echo")


async def test_a_tools_own_error_is_marked_and_passed_on() -> None:
    async with World() as world:
        await world.connect(child())
        assert (await world.reply("act", how="is-error")).headers == {"is-error": "true"}
        assert (await world.reply("echo")).headers == {}


async def test_pings_are_answered_and_other_requests_of_the_server_refused() -> None:
    async with World() as world:
        await world.connect(child())
        pong, refused = json.loads((await world.call("act", how="ask"))["content"][0]["text"])
        assert pong == {"jsonrpc": "2.0", "id": "p", "result": {}}
        assert (refused["id"], refused["error"]["code"]) == ("q", -32601)


async def test_tools_that_changed_are_listed_again() -> None:
    async with World() as world:
        await world.connect(child())
        await world.call("act", how="grow")
        await world.until(lambda: "new" in world.names())


async def test_a_loud_child_does_not_block_or_fill_memory() -> None:
    async with World() as world:
        await world.connect(child())
        assert await world.call("act", how="noise")


async def test_a_child_that_ignores_the_modern_question_is_asked_the_old_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_stdio, "PROBE_TIMEOUT_S", 0.2)
    async with World() as world:
        await world.connect(child("deaf"))
        assert await world.call("echo")


@pytest.mark.parametrize(("how", "why"), [("ancient", "no version"), ("future", "no version"), ("endless", "no end")])
async def test_a_server_that_cannot_be_talked_to_says_why(how: str, why: str) -> None:
    async with World() as world:
        world.servers.configure([child(how)])
        await world.until(lambda: "unreachable" in world.states())
        assert any(why in reason for _, state, reason in world.reports if state == "unreachable")


@pytest.mark.parametrize("how", ["good", "stubborn"])
async def test_stopping_leaves_no_child_no_grandchild_and_no_zombie(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_stdio, "STOP_GRACE_S", 0.3)
    before = children()
    async with World() as world:
        await world.connect(child(how))
        grandchild = int((await world.call("act", how="grandchild"))["content"][0]["text"])
        assert alive(grandchild)
        assert children() - before
    assert children() <= before
    async with asyncio.timeout(5):  # it was sent SIGKILL; the kernel takes its time
        while alive(grandchild):
            await asyncio.sleep(0.001)


async def test_a_changed_manifest_restarts_and_a_removed_one_stops() -> None:
    async with World() as world:
        await world.connect(child())
        world.servers.configure([child()])  # the same: nothing happens
        assert world.states().count("connecting") == 1
        await world.call("echo")
        world.reports.clear()
        world.servers.configure([child(MORE="1")])
        await world.until(lambda: "connected" in world.states())
        env = json.loads((await world.call("env"))["content"][0]["text"])
        assert env["MORE"] == "1"
        world.servers.configure([])
        assert "no such server" in (await world.refused("echo")).message


async def test_a_call_in_flight_outlives_a_change_of_its_manifest() -> None:
    async with World() as world:
        await world.connect(child())
        running = asyncio.create_task(world.call("act", how="cancelled"))  # waits for one more line
        await asyncio.sleep(0)
        while not world.servers._links["s"]._in_flight:
            await asyncio.sleep(0)
        old = world.servers._links["s"]
        world.servers.configure([child(MORE="1")])
        waiting = asyncio.create_task(old.call("echo", {}, meta=None, timeout_s=5.0, once=True))
        assert "content" in await running
        waiting.cancel()


def test_lines_are_cut_wherever_the_chunks_end() -> None:
    data = b"one\ntwo\n\nthree\n"
    for size in range(1, len(data) + 1):
        lines = Lines(100)
        found = [line for start in range(0, len(data), size) for line in lines.feed(data[start : start + size])]
        assert found == [(b"one", True), (b"two", True), (b"", True), (b"three", True)]


def test_of_a_line_that_is_too_long_only_the_start_is_kept_and_it_is_told_once() -> None:
    for size in (1, 3, 7, 50):
        lines = Lines(10)
        data = b"a" * 25 + b"\nshort\n" + b"b" * 11 + b"\n"
        found = [line for start in range(0, len(data), size) for line in lines.feed(data[start : start + size])]
        assert [whole for _, whole in found] == [False, True, False], size
        assert found[1][0] == b"short"
