"""Manifests: a typo is told with file, line and suggestion; names can't be ambiguous; switches switch."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.catalog import read_registry
from gateway.catalog.manifests import Stdio
from tests.catalog.shelf import BANK, CLIENT, manifests, registry

ROOT = Path(__file__).parents[2]


def told(folder: Path, text: str) -> str:
    found, problems = registry(folder, text)
    assert found is None
    return "\n".join(str(problem) for problem in problems)


def test_a_typo_names_file_line_and_what_was_meant(tmp_path: Path) -> None:
    said = told(tmp_path, BANK.replace("    effect: write", "    effcet: write"))
    assert said == f"{tmp_path}/m0.yaml:8: Unknown key 'tools.transfer.effcet'. Did you mean 'effect'?"


def test_the_problems_of_all_files_are_told_together(tmp_path: Path) -> None:
    found, problems = registry(tmp_path, BANK.replace("risk: high", "risk: huge"), CLIENT.replace("owner", "ownr"), "x")
    assert found is None
    assert {Path(problem.file).name for problem in problems} == {"m0.yaml", "m1.yaml", "m2.yaml"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("{to}", "{whom}", "speaks of 'whom'"),
        ("{amount_cents:money}", "{amount_cents:payee}", "declared as money"),
        ("{to}", "{to", "can't be read"),
        ("{to}", "{}", "must be {name}"),
        ("{to}", "{to!r}", "must be {name}"),
        ("{to}", "{to.x}", "must be {name}"),
        ("{to}", "{to[0]}", "must be {name}"),
        (", currency: USD", "", "needs currency"),
        ("kind: payee", "kind: payee, unit: cents", "belong to arguments of kind money"),
        ("currency: USD", "currency: usd", "arguments.amount_cents.currency"),
        ("server: bank", "server: my__bank", "must not contain '__'"),
        ("server: bank", "server: bank_", "nor end with '_'"),
        ("server: bank", "server: gateway", "the gateway's own"),
        ("server: bank", "server: client", "the gateway's own"),
        ("server: bank", "server: Bank", "server"),
        ("owner: treasury@example.com", 'owner: ""', "owner"),
        ("transport: {", "credential: sk-abc\ntransport: {", "must be a reference"),
        ("transport: {", "enabled: maybe\ntransport: {", "true, false, or a reference"),
        ("http://127", "ftp://127", "http:// or https://"),
        ("  look:", "  lo~ok:", "look"),
        ("  look:", f"  {'l' * 123}:", "longer than 128"),
        ("risk: low, effect: read", "risk: low, effect: read, pin: md5:1", "pin"),
        ("version: 1", "version: 2", "'version'"),
    ],
)
def test_what_a_manifest_must_not_say_is_told_with_its_reason(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in BANK
    said = told(tmp_path, BANK.replace(old, new, 1))
    assert reason.replace("look", "lo~ok" if "lo~ok" in new else "look") in said
    assert "sk-abc" not in said


@pytest.mark.parametrize("name", ["lo.ok", "a/b:c-d_e", "...", "l" * 122])
def test_a_tool_has_any_name_that_a_proposal_may_have(tmp_path: Path, name: str) -> None:
    (manifest,) = manifests(tmp_path, BANK.replace("  look:", f'  "{name}":'))
    assert manifest.target(name).id == f"bank__{name}"


def test_a_gateway_tool_needs_a_transport_and_a_clients_tool_has_none(tmp_path: Path) -> None:
    assert "needs a transport" in told(tmp_path, CLIENT.replace("kind: client", "kind: mcp"))
    transport = "transport: {type: streamable_http, url: 'http://h'}\ntools:"
    assert "neither transport nor credential" in told(tmp_path, CLIENT.replace("tools:", transport))


def test_a_child_takes_its_secrets_from_its_environment_only(tmp_path: Path) -> None:
    text = BANK.replace(
        'transport: {type: streamable_http, url: "http://127.0.0.1:1/mcp"}',
        "transport: {type: stdio, command: [x]}\ncredential: env:K",
    )
    assert "hand it over in transport.env" in told(tmp_path, text)


def test_two_manifests_of_one_server_are_refused(tmp_path: Path) -> None:
    found, problems = registry(tmp_path, BANK, BANK)
    assert found is None
    assert "already described in m0.yaml" in problems[0].message
    assert problems[0].line == 2


def test_a_reference_that_leads_nowhere_is_told_where_it_stands(tmp_path: Path) -> None:
    text = BANK.replace("http://127.0.0.1:1/mcp", "env:BANK_URL")
    found, (problem,) = registry(tmp_path, text)
    assert found is None
    assert (problem.line, "BANK_URL is not set" in problem.message) == (4, True)
    assert manifests(tmp_path, text, BANK_URL="http://h/mcp")


def test_a_reference_to_something_that_is_no_address_is_told(tmp_path: Path) -> None:
    found, (problem,) = registry(tmp_path, BANK.replace("http://127.0.0.1:1/mcp", "env:BANK_URL"), BANK_URL="h:1")
    assert found is None
    assert "does not lead to" in problem.message


def test_a_server_is_switched_by_what_its_reference_leads_to(tmp_path: Path) -> None:
    text = BANK.replace("owner:", "enabled: env:BANK_ON\nowner:")
    assert manifests(tmp_path, text) == ()
    assert [one.server for one in manifests(tmp_path, text, BANK_ON="1")] == ["bank"]
    assert manifests(tmp_path, BANK.replace("owner:", "enabled: false\nowner:")) == ()


def test_a_typo_in_a_manifest_that_is_switched_off_is_still_told(tmp_path: Path) -> None:
    assert "riks" in told(tmp_path, BANK.replace("owner:", "enabled: false\nowner:").replace("risk", "riks"))


def test_a_working_directory_is_relative_to_the_manifest(tmp_path: Path) -> None:
    text = BANK.replace(
        '{type: streamable_http, url: "http://127.0.0.1:1/mcp"}', "{type: stdio, command: [x], cwd: here}"
    )
    (manifest,) = manifests(tmp_path, text)
    assert isinstance(manifest.transport, Stdio)
    assert manifest.transport.cwd == tmp_path / "here"


def test_an_absent_registry_is_a_problem(tmp_path: Path) -> None:
    found, (problem,) = read_registry(tmp_path / "nowhere", {})
    assert found is None
    assert "cannot be read" in problem.message


def test_the_shipped_manifests_are_good_and_off_without_their_variables() -> None:
    folder = ROOT / "tools_registry"
    off, problems = read_registry(folder, {})
    assert off is not None
    assert ([one.server for one in off], problems) == (["claude-code", "codex"], [])
    on = {
        "LEDGER_URL": "http://h/mcp",
        "LEDGER_TOKEN": "t" * 8,
        "GATEWAY_GIT_SERVER": "g",
        "GATEWAY_GIT_REPOSITORY": "/r",
    }
    found, problems = read_registry(folder, on)
    assert found is not None
    assert ([one.server for one in found], problems) == (["claude-code", "codex", "git", "ledger"], [])
