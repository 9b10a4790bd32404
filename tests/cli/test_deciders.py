"""`gateway check` tells of cases that nobody may decide, and `gateway people` keeps who may."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from gateway.cli import run
from tests.cli.conftest import Shell

ROOT = Path(__file__).parents[2]
RULE = """package gateway

escalate contains {
\t"rule": "asks",
\t"reason": "Ask.",
\t"obligations": [{"approval": {"quorum": [{"approve": 2, "group": "treasury"}, {"group": "board"}], "ttl_s": 60}}],
} if {
\tinput.target.id == "vault__open"
\tinput.action.kind == "tool.call"
}
"""
CONFIG = """version: 1
tool_registry: tools_registry
policy: {path: policies}
agents:
  - id: payer
    owners: {business: olga}
approvals:
  groups: [treasury]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    (tmp_path / "tools_registry").mkdir()
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    (tmp_path / "var").mkdir(mode=0o700)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "var"))
    return tmp_path


def warnings(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    run(["check", "--config", str(folder / "gateway.yaml")])
    return capsys.readouterr().out


def people(folder: Path, **known: tuple[str, str]) -> None:
    assert run(["migrate", "--data-dir", str(folder / "var")]) == 0
    connection = sqlite3.connect(folder / "var" / "gateway.db")
    for person, (roles, groups) in known.items():
        connection.execute(
            "INSERT INTO person (id, tenant, name, roles, created_ns, groups) VALUES (?, 'default', '', ?, 1, ?)",
            (person, roles, groups),
        )
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"olga": ('["reviewer"]', '["treasury"]')}, "Nobody may decide what the agent payer"),
        ({"ada": ('["auditor"]', '["treasury"]')}, "Nobody may decide what the agent payer"),
        ({"ada": ('["reviewer"]', "[]")}, "Nobody of the group 'treasury' may decide for the agent payer"),
        ({"ada": ('["reviewer"]', "[]"), "olga": ('["reviewer"]', '["treasury"]')}, "Nobody of the group 'treasury'"),
        ({"ada": ('["reviewer"]', '["treasury"]')}, ""),
    ],
)
def test_check_warns_where_nobody_is_left_to_decide(
    folder: Path, capsys: pytest.CaptureFixture[str], known: dict[str, tuple[str, str]], said: str
) -> None:
    people(folder, **known)
    capsys.readouterr()
    told = warnings(folder, capsys)
    assert said in told if said else "Nobody" not in told
    assert told.count("Nobody") == (1 if said else 0)


def test_check_finds_agents_of_the_database_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people(folder, olga=('["reviewer"]', '["treasury"]'), ada=('["reviewer"]', '["treasury"]'))
    connection = sqlite3.connect(folder / "var" / "gateway.db")
    for agent, owners in (("sweeper", '{"business": "Olga", "risk": "ada"}'), ("reader", '{"business": "olga"}')):
        connection.execute(
            "INSERT INTO agent (id, tenant, env, version, team, use_case, tier, status, owners, labels, source,"
            " created_ns) VALUES (?, 'default', 'dev', '1', '', '', 'standard', 'active', ?, '{}', 'api', 1)",
            (agent, owners),
        )
    connection.commit()
    connection.close()
    capsys.readouterr()
    told = warnings(folder, capsys)
    assert "Nobody may decide what the agent sweeper has to ask for, or find out what became of a call" in told
    assert "people add" in told
    assert told.count("Nobody") == 1


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFG7qJBxBrmRnnKHo/Hc299dutNj9M6id+PQXTUiar9o ada@laptop"


@pytest.mark.parametrize(
    ("asked", "keys", "said"),
    [(2, "", "2 approvals are asked for, and at most 1 can count"), (2, f"ada: {KEY}", ""), (1, "", "")],
)
def test_check_warns_where_one_operator_makes_all_links_and_two_must_approve(
    folder: Path, capsys: pytest.CaptureFixture[str], asked: int, keys: str, said: str
) -> None:
    (folder / "policies").unlink()
    shutil.copytree(ROOT / "policies", folder / "policies")
    rule = RULE.replace('"approve": 2, "group": "treasury"}, {"group": "board"}', f'"approve": {asked}' + "}")
    (folder / "policies" / "asks.rego").write_text(rule)
    (folder / "gateway.yaml").write_text(f"{CONFIG}sign_in: {{keys: {{{keys}}}}}\n")
    reviews = '["reviewer"]'
    people(folder, operator=('["operator", "reviewer"]', "[]"), ada=(reviews, '["treasury"]'), ben=(reviews, "[]"))
    capsys.readouterr()
    told = warnings(folder, capsys)
    assert ("asks.rego:6: warning: " + said in told) if said else ("approvals are asked for" not in told)
    assert ("gateway login --key" in told) is bool(said)


def test_check_says_nothing_of_people_before_a_first_start(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Nobody" not in warnings(folder, capsys)
    assert not list((folder / "var").iterdir())
    people(folder)
    assert "Nobody" not in warnings(folder, capsys)


def test_check_warns_of_a_group_that_is_not_declared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "policies").unlink()
    shutil.copytree(ROOT / "policies", folder / "policies")
    (folder / "policies" / "asks.rego").write_text(RULE)
    told = warnings(folder, capsys)
    assert "asks.rego:6: warning: The group 'board' is not declared" in told
    assert "'treasury'" not in told


async def test_groups_are_given_listed_and_changed(shell: Shell) -> None:
    await shell("people", "add", "olga", "--role", "reviewer", "--group", "treasury", "--group", "risk")
    assert "risk,treasury" in (await shell("people", "list")).out
    changed = (await shell("people", "update", "olga", "--group", "board", "--json")).json
    assert (changed["roles"], changed["groups"]) == (["reviewer"], ["board"])
    assert (await shell("people", "update", "olga", "--no-groups", "--json")).json["groups"] == []
    assert (await shell("people", "update", "olga", exit_code=2)).err
    assert "not valid" in (await shell("people", "update", "olga", "--group", "a,b", exit_code=1)).err


async def test_the_trail_is_asked_by_case(shell: Shell) -> None:
    assert "No record" in (await shell("audit", "query", "--case", "no-such-case")).out
