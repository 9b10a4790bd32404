from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from gateway.audit.log import AuditLog
from gateway.commands import drill
from gateway.commands.checking import look
from gateway.documents import Problem, errors
from gateway.upstreams.wire_head import WireFailed, WireTimeout, sentence, unreachable
from gateway.verify.notes import Signer

from ..footing import PUBLIC_URL
from ..gateway_house import CONFIG, use_link
from .conftest import Shell


async def test_agents_are_created_listed_shown_suspended_resumed_and_rotated(shell: Shell) -> None:
    made = (
        await shell("agents", "create", "bot", "--team", "t", "--owner", "business=dana", "--label", "a=b", "--json")
    ).json
    assert made["owners"] == {"business": "dana"}
    secret = made["key"]["secret"]
    listed = (await shell("agents", "list", "--json")).json
    assert [one["id"] for one in listed] == ["bot", "reader", "writer"]
    assert len((await shell("agents", "list", "--json", "--limit", "1")).json) == 1
    assert "bot" in (await shell("agents", "list")).out
    assert "shown" not in (await shell("agents", "list")).out
    assert "1 of 3 shown" in (await shell("agents", "list", "--limit", "1")).out
    shown = await shell("agents", "show", "bot")
    assert "active" in shown.out
    assert secret not in shown.out
    assert "suspended" in (await shell("agents", "suspend", "bot", "--reason", "odd")).out
    assert (await shell("agents", "show", "bot", "--json")).json["status"] == "suspended"
    assert "active" in (await shell("agents", "resume", "bot")).out
    rotated = (await shell("agents", "rotate-key", "bot", "--overlap", "1h", "--json")).json
    assert [old["state"] for old in rotated["replaces"]] == ["expiring"]
    async with shell.running.client(rotated["secret"]) as agent:
        assert (await agent.get("/api/v1/me")).status_code == 200


async def test_a_persons_way_from_added_to_signed_in_to_removed(shell: Shell) -> None:
    await shell("people", "add", "olga", "--role", "auditor", "--name", "Olga Reyes")
    assert "Olga Reyes" in (await shell("people", "list")).out
    link = (await shell("login", "--person", "olga", "--json")).json["url"]
    assert link.startswith(f"{PUBLIC_URL}/console/login?token=")
    assert (await shell("login")).out.startswith(PUBLIC_URL)
    browser = shell.running.client()
    assert (await use_link(browser, link.partition("token=")[2])).status_code == 303
    await shell("people", "remove", "olga")
    assert (await browser.get("/console/overview")).status_code == 401
    assert [one["id"] for one in (await shell("people", "list", "--json")).json] == ["operator"]


async def test_a_token_for_scripts_is_made_listed_and_revoked(shell: Shell) -> None:
    made = (await shell("login", "--token", "--days", "2", "--json")).json
    token = made["token"]
    assert token.startswith("agt_")
    async with shell.running.client(token) as script:
        assert (await script.get("/api/v1/people/me")).json()["id"] == "operator"
        listed = await shell("sessions", "list")
        assert made["id"] in listed.out
        assert token not in listed.out
        assert "Revoked" in (await shell("sessions", "revoke", made["id"])).out
        assert (await script.get("/api/v1/people/me")).status_code == 401
    assert (await shell("login", "--token")).out.startswith("agt_")
    assert "gateway sessions list" in (await shell("sessions", "revoke", made["id"], exit_code=1)).err
    for wrong in (("--days", "2"), ("--token", "--next", "/console/audit")):
        await shell("login", *wrong, exit_code=2)


async def test_a_link_leads_to_a_page_of_the_console_and_to_nothing_else(shell: Shell) -> None:
    assert (await shell("login", "--next", "/console/audit")).out.count("&next=%2Fconsole%2Faudit\n") == 1
    assert "page of the console" in (await shell("login", "--next", "//evil.example/console", exit_code=1)).err


async def test_status_is_one_look_and_its_exit_code_says_whether_all_is_well(shell: Shell) -> None:
    assert (await shell("status")).out.startswith("ok: ")
    assert (await shell("status", "--json")).json["url"] == shell.url
    assert (await shell("healthcheck")).out == "ready\n"
    shell.running.app.writer.latch("the test says so")
    degraded = await shell("status", exit_code=1)
    assert "DEGRADED audit since" in degraded.out
    assert "the test says so" in (await shell("healthcheck", exit_code=1)).out


async def test_check_names_the_manifests_that_are_switched_off_and_why(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GATEWAY_NO_SUCH", raising=False)
    manifest = "version: 1\nserver: {name}\nkind: client\ntitle: T\nowner: dana\nenabled: {enabled}\ntools: {{}}\n"
    registry = shell.running.folder / "tools_registry"
    (registry / "a.yaml").write_text(manifest.format(name="files", enabled='"env:GATEWAY_NO_SUCH"'))
    problems, summary = look(Path("gateway.yaml"))
    assert errors(problems) == []
    assert summary.endswith("\n1 manifest switched off by this shell's variables: files (GATEWAY_NO_SUCH is not set).")
    (registry / "b.yaml").write_text(manifest.format(name="more", enabled="false"))
    assert "2 manifests switched off by this shell's variables: files" in look(Path("gateway.yaml"))[1]
    assert "more (enabled: false)." in look(Path("gateway.yaml"))[1]


@pytest.mark.parametrize("how", ["wrong key", "suspended", "nobody there"])
async def test_the_mcp_example_says_a_refusal_in_one_sentence(shell: Shell, how: str) -> None:
    _, secret = await shell.running.app.registry.keys.create("reader", person="operator")
    url, key = f"{shell.url}/mcp", secret
    if how == "wrong key":
        key = "wrong"
    elif how == "suspended":
        await shell("agents", "suspend", "reader", "--reason", "odd")
    else:
        url = "http://127.0.0.1:1/mcp"
    command = [sys.executable, "-m", "gateway.quickstart.try_mcp", url, key, "get_balance"]
    root = Path(__file__).parents[2]
    ended = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, cwd=root, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr + ended.stdout
    assert len(ended.stdout.splitlines()) == 1
    expected = {"wrong key": "The agent key is not known", "suspended": "reader is suspended", "nobody there": ""}
    assert expected[how] in ended.stdout


async def test_the_trail_is_queried_shown_and_verified(shell: Shell) -> None:
    agent = await shell.running.agent()
    action = await shell.running.ask(agent)
    found = (await shell("audit", "query", "--action", action, "--json")).json
    assert [one["type"] for one in found] == ["action.result", "action.intent"]
    assert all(one["id"] for one in found)
    text = (await shell("audit", "query", "--kind", "model.invoke", "--since", "1h", "--limit", "1")).out
    assert "succeeded" in text
    assert len(text.splitlines()) == 3
    assert text.splitlines()[-1] == "1 of 2 shown; --limit shows more."
    everything = (await shell("audit", "query", "--json", "--limit", "1000")).json
    assert everything
    assert not [one for one in everything if one["type"] == "audit.read"]
    assert [one for one in (await shell("audit", "query", "--reads", "--json")).json if one["type"] == "audit.read"]
    assert {one["type"] for one in (await shell("audit", "query", "--type", "audit.read", "--json")).json} == {
        "audit.read"
    }
    assert "Hello" not in (await shell("audit", "show", action)).out
    assert "Hello" in (await shell("audit", "show", action, "--disclose")).out
    log = shell.running.app.log
    assert isinstance(log, AuditLog)
    await log.tick()
    verified = await shell("audit", "verify", "--json")
    assert verified.json["verdict"] == "operator-signed"
    note = (await shell("audit", "checkpoint")).out
    kept = shell.running.folder / "kept.txt"
    kept.write_text(note)
    assert "operator-signed" in (await shell("audit", "verify", "--checkpoint", str(kept))).out
    noted = next(line for line in (await shell("audit", "verify")).out.splitlines() if line.startswith("checkpoint "))
    assert "operator-signed" in (await shell("audit", "verify", "--known", noted.removeprefix("checkpoint "))).out
    vkey = verified.json["vkey"]
    own = shell.running.folder / "log.vkey"
    own.write_text(f"{vkey}\n")
    assert "operator-signed" in (await shell("audit", "verify", "--key", str(own))).out
    for wrong in ("nothing+like+a-key", "/no/such/file", Signer("log.example", b"x" * 32).verifier.vkey, str(kept)):
        refused = await shell("audit", "verify", "--key", wrong, exit_code=2)
        assert refused.out == ""
        assert "key" in refused.err


async def test_policies_are_checked_tested_and_explained(shell: Shell) -> None:
    assert "ok" in (await shell("policy", "check")).out
    assert " 0 failed" in (await shell("policy", "test")).out
    explained = await shell("policy", "explain", "--agent", "reader", "--target", "demo", "--kind", "model.invoke")
    assert explained.out.startswith("allow: ")
    agent = await shell.running.agent()
    action = await shell.running.ask(agent)
    again = (await shell("policy", "explain", action, "--json")).json
    assert again["effect"] == again["recorded"]["effect"] == "allow"
    (shell.running.folder / "policies" / "gateway" / "broken.rego").write_text("package gateway\n\nallow if {")
    assert "broken.rego" in (await shell("policy", "check", exit_code=1)).out
    assert "broken.rego" in (await shell("policy", "test", exit_code=1)).err
    assert "broken.rego" in (await shell("reload", exit_code=1)).err


async def test_tools_are_listed_and_inspected(shell: Shell) -> None:
    manifest = "version: 1\nserver: files\nkind: client\ntitle: Files\nowner: dana\ntools:\n  read_file: {risk: low, effect: read}\n"
    manifest += '  "a/b:c.d": {risk: low, effect: read}\n'
    (shell.running.folder / "tools_registry" / "files.yaml").write_text(manifest)
    assert "In force" in (await shell("reload")).out
    assert [one["id"] for one in (await shell("tools", "list", "--json")).json] == [
        "files__a/b:c.d",
        "files__read_file",
    ]
    assert (await shell("tools", "list", "--server", "none", "--json")).json == []
    assert (await shell("tools", "inspect", "files__read_file", "--json")).json["owner"] == "dana"
    assert (await shell("tools", "inspect", "files__a/b:c.d", "--json")).json["tool"] == "a/b:c.d"
    assert "no tool" in (await shell("tools", "inspect", "files__nothing", exit_code=1)).err


async def test_what_the_gateway_refuses_is_said_in_a_sentence(shell: Shell) -> None:
    refused = await shell("agents", "show", "nobody", exit_code=1)
    assert refused.err == "gateway: There is no agent 'nobody'; `gateway agents list` shows those there are.\n"
    assert "not valid" in (await shell("people", "add", "x", "--role", "king", exit_code=1)).err
    assert "conflict" not in (await shell("agents", "create", "reader", exit_code=1)).err


async def test_check_tells_all_problems_of_all_files_at_once(shell: Shell) -> None:
    folder = shell.running.folder
    assert (await shell("check")).out.splitlines()[-1].startswith("ok: 1 models, 2 agents")
    (folder / "gateway.yaml").write_text(CONFIG.replace("provider: demo,", "provder: demo,"))
    (folder / "tools_registry" / "bad.yaml").write_text("version: 1\nserver: bad\nkind: clent\nowner: d\ntools: {}\n")
    (folder / "policies" / "gateway" / "broken.rego").write_text("package gateway\n\nallow if {")
    ended = await shell("check", exit_code=1)
    for place in ("gateway.yaml:7: ", "bad.yaml:3: ", "broken.rego:3"):
        assert place in ended.out, ended.out
    assert "Did you mean 'provider'?" in ended.out
    rows = (await shell("check", "--json", exit_code=1)).json
    assert set(rows[0]) == {"id", *Problem.__dataclass_fields__}
    assert len(rows) >= 3


async def test_check_of_a_file_that_is_not_there_is_a_problem_with_its_name(shell: Shell) -> None:
    assert "nothing.yaml" in (await shell("check", "--config", "nothing.yaml", exit_code=1)).out


async def test_output_cannot_move_the_terminal(shell: Shell) -> None:
    agent = await shell.running.agent()
    await agent.post("/v1/chat/completions", json={"model": "\x1b[2Jx\u202ey", "messages": []})
    out = (await shell("audit", "query", "--kind", "model.invoke")).out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_a_drill_does_not_take_who_answers_here_for_a_replica_of_another_machine() -> None:
    here = f"{socket.gethostname()}/17"
    assert not drill.is_apart({"name": here, "url": "http://127.0.0.1:9101"})
    assert drill.is_apart({"name": "elsewhere/17", "url": "http://127.0.0.1:9101"})
    assert not drill.is_apart({"name": "elsewhere/17", "url": "http://elsewhere:8080"})


async def test_a_drill_measures_an_agent_at_its_limit_too_and_says_why_there_is_no_stream(shell: Shell) -> None:
    (shell.running.folder / "gateway.yaml").write_text(
        CONFIG + "limits:\n  agents: {reader: {requests_per_minute: 3}}\n"
    )
    assert (await shell("reload")).code == 0
    for _ in range(2):  # the first one's questions use up the limit
        (row,) = (await shell("drill", "reader", "--json")).json
        assert row["refused_after_ms"] <= 1000
    refused = await shell("drill", "reader", "--model", "demo", exit_code=1)
    assert "opened no stream of demo (429)" in refused.err
    assert "rate_limit" in refused.err
    refused = await shell("drill", "writer", "--model", "nothing", exit_code=1)
    assert "opened no stream of nothing (404)" in refused.err
    for agent in ("reader", "writer"):
        assert (await shell("agents", "show", agent, "--json")).json["status"] == "active"


async def test_a_drill_leaves_a_suspension_that_is_not_its_own(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    gateways = asyncio.get_running_loop()  # the command has one of its own

    async def suspended_meanwhile(_: object, urls: Iterable[str], path: str) -> dict[str, int]:
        asked.append(path)
        if path == "/v1/models":
            suspended = shell.running.app.registry.agents.suspend("reader", person="operator", reason="for real")
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(suspended, gateways))
        return dict.fromkeys(urls, 200)

    monkeypatch.setattr(drill, "_answering", suspended_meanwhile)
    assert "it stays suspended" in (await shell("drill", "reader", exit_code=1)).err
    assert asked == ["/livez", "/v1/models"]
    assert (await shell("agents", "show", "reader", "--json")).json["status"] == "suspended"
    assert "suspended already" in (await shell("drill", "reader", exit_code=1)).err


async def test_a_drill_that_no_replica_answers_suspends_nobody(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object) -> dict[str, int]:
        return {}

    monkeypatch.setattr(drill, "_answering", silent)
    assert "No replica answers" in (await shell("drill", "reader", exit_code=1)).err
    suspended = (await shell("audit", "query", "--type", "agent.*", "--json")).json
    assert not [one for one in suspended if one["type"] in ("agent.suspended", "agent.resumed")]


async def test_a_tool_whose_server_cannot_be_reached_says_so_and_starting_is_no_fault(shell: Shell) -> None:
    app, manifest = shell.running.app, shell.running.folder / "tools_registry" / "crm.yaml"
    with socket.socket() as silent, socket.socket() as closed:
        for one in (silent, closed):
            one.bind(("127.0.0.1", 0))
        silent.listen()  # connections to it are taken, and nobody answers; to the other they are refused
        for server in (silent, closed):
            manifest.write_text(
                "{version: 1, server: crm, kind: mcp, owner: dana, tools: {look_up: {risk: low, effect: read}},"
                f" transport: {{type: streamable_http, url: 'http://127.0.0.1:{server.getsockname()[1]}/mcp'}}}}"
            )
            assert errors(await app.reload("test")) == []
            if server is silent:
                assert [one.reason for one in app.health.conditions() if one.id == "tool_servers"] == [None]
        async with asyncio.timeout(20):
            while [one.state for one in app.catalog.servers()] != ["unreachable"]:
                await asyncio.sleep(0.01)
        listed = (await shell("tools", "list")).out
        assert "unreachable" in listed
        assert "could not connect: the connection was refused" in listed
        assert "properly" not in listed
        (fault,) = [one.reason for one in app.health.conditions() if one.id == "tool_servers"]
        assert "could not connect" in str(fault)


def test_what_happened_to_a_connection_is_said_as_it_was() -> None:
    refused = unreachable(ConnectionRefusedError())
    assert sentence("tool server crm", refused).startswith(
        "Could not connect to the tool server crm: the connection was"
    )
    assert "resolved" in sentence("tool server crm", unreachable(socket.gaierror()))
    broke = WireFailed("the server closed the connection without an answer", dispatched=True)
    assert sentence("model provider p", broke).startswith("The connection to the model provider p failed: the server")
    late = WireTimeout("idle", "nothing came for 5 s", dispatched=True)
    assert sentence("tool server crm", late) == "The tool server crm did not answer in time: nothing came for 5 s."
    odd = WireFailed("its answer is not HTTP/1.1", dispatched=True, answered=True)
    assert "did not answer properly" in sentence("tool server crm", odd)
