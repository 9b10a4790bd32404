"""The grants: a typing error in shape or values is an error at its line; names that do not exist are warnings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from gateway.documents import Problem, errors
from gateway.policy import Examined, load
from gateway.policy.known import Known
from tests.policy.asking import POLICIES, folder

KNOWN = Known(
    tools={
        "crm": frozenset({"send_mail", "find"}),
        "ledger": frozenset({"transfer"}),
        "desk": frozenset({"Bash", "Read"}),
    },
    models=frozenset({"demo", "claude-big"}),
    agents=frozenset({"mail-bot", "payer"}),
    teams=frozenset({"finance"}),
    tiers=frozenset({"standard"}),
)

AGENT = "agents:\n  mail-bot:\n"
SERVER = f"{AGENT}    servers:\n"

# name: (data.yaml, line, words of the message, words of what to do)
WRONG: dict[str, tuple[str, int, str, str]] = {
    "a hyphen": (f"{SERVER}      crm: {{max-risk: high}}", 4, "'max-risk'", "Did you mean 'max_risk'?"),
    "a value": (f"{SERVER}      crm: {{max_risk: hgih}}", 4, "cannot be 'hgih'", "Did you mean 'high'?"),
    "a value of another type": (f"{SERVER}      crm: {{max_risk: 3}}", 4, "cannot be 3", "low, medium, high"),
    "an effect": (f"{SERVER}      crm:\n        max_risk: low\n        unattended: [raed]", 6, "'raed'", "'read'"),
    "destructive": (f"{SERVER}      crm: {{max_risk: low, unattended: [destructive]}}", 4, "'destructive'", "`allow`"),
    "one effect": (f"{SERVER}      crm: {{max_risk: low, unattended: write}}", 4, "must be a list", "[write]"),
    "a switch": (f"{SERVER}      crm: {{max_risk: low, unattended: true}}", 4, "must be a list", "[read]"),
    "one tool": (f"{SERVER}      crm: {{max_risk: low, tools: find}}", 4, "must be a list", "[find]"),
    "every tool": (f'{SERVER}      crm: {{max_risk: low, tools: ["*"]}}', 4, "'*'", "Leave `tools` out"),
    "a tool that is a number": (f"{SERVER}      crm: {{max_risk: low, tools: [7]}}", 4, "names only", "quotes"),
    "no risk": (f"{SERVER}      crm: {{tools: [find]}}", 4, "no 'max_risk'", "Add `max_risk:`"),
    "nothing of a server": (f"{SERVER}      crm:", 4, "must be a mapping", "max_risk: low"),
    "servers as a list": (f"{AGENT}    servers: [crm]", 3, "must be a mapping", "crm: {max_risk: low}"),
    "a server as text": (f"{AGENT}    servers: crm", 3, "must be a mapping", "crm: {max_risk: low}"),
    "every server": (f'{SERVER}      "*": {{max_risk: low}}', 4, "'*'", "Name each server"),
    "one model": (f"{AGENT}    models: demo", 3, "must be a list", "[demo]"),
    "a key of the agent": (f"{AGENT}    model: [demo]", 3, "Unknown field 'model'", "Did you mean 'models'?"),
    "a key too high": (f"{AGENT}    max_risk: low", 3, "does not belong", "servers.NAME.max_risk"),
    "a misspelt key too high": (
        f"{AGENT}    unatended: [read]",
        3,
        "'unatended'",
        "'unattended'? It belongs to a server",
    ),
    "a key too low": (
        f"{SERVER}      crm: {{max_risk: low, models: [demo]}}",
        4,
        "does not belong",
        "beside `servers`",
    ),
    "a key without a neighbour": (
        f"{AGENT}    colour: red",
        3,
        "Unknown field 'colour'",
        "Fields are: models, servers",
    ),
    "nothing of an agent": ("agents:\n  mail-bot:\n", 2, "must be a mapping", "Write `{}`"),
    "no agents": ("agents:\n", 1, "must be a mapping", "agents: {}"),
    "agents as a list": ("agents: [mail-bot]\n", 1, "must be a mapping", "agents: {}"),
    "a section": ("agnets: {}\n", 1, "Unknown key 'agnets'", "Did you mean 'agents'?"),
    "an agent without a section": ("mail-bot: {models: [demo]}\n", 1, "Unknown key 'mail-bot'", "under `agents:`"),
    "the folder's name again": ("grants:\n  agents: {}\n", 1, "Unknown key 'grants'", "Move what is below it up"),
    "a team": ("teams:\n  finance:\n    servers: {crm: {max_risk: lo}}\n", 3, "cannot be 'lo'", "low"),
    "a tier": ("tiers:\n  standard: {modles: [demo]}\n", 2, "Unknown field 'modles'", "'models'"),
}


def granting(root: Path, data: str | None, more: dict[str, str | bytes] | None = None) -> Path:
    """The shipped rules with other grants."""
    shutil.copytree(POLICIES / "gateway", root / "gateway")
    return folder(root, {**({} if data is None else {"grants/data.yaml": data}), **(more or {})})


def told(problems: list[Problem], root: Path) -> list[tuple[str, int, str]]:
    return [(Path(one.file).relative_to(root).as_posix(), one.line, f"{one.message} {one.mend}") for one in problems]


@pytest.mark.parametrize("name", WRONG)
def test_a_typing_error_is_an_error_at_its_line(name: str, tmp_path: Path) -> None:
    data, line, message, mend = WRONG[name]
    engine, problems = load(granting(tmp_path, data))
    assert engine is None
    (found,) = [one for one in errors(problems) if message in one.message]
    assert (found.file, found.line) == (str(tmp_path / "grants/data.yaml"), line)
    assert mend in found.mend


@pytest.mark.parametrize(
    "data",
    [
        "agents: {}\nteams: {}\ntiers: {}\n",
        "agents:\n  mail-bot: {}\n",
        'tiers:\n  standard: {models: ["*"], servers: {}}\n',
        f"{SERVER}      crm: {{max_risk: critical, tools: [find], unattended: [read, write, egress]}}\n",
        f"{SERVER}      crm: {{max_risk: low, unattended: [], tools: []}}\n",
    ],
)
def test_what_is_right_is_left_alone(data: str, tmp_path: Path) -> None:
    engine, problems = load(granting(tmp_path, data))
    assert engine is not None
    assert told(problems, tmp_path) == []
    assert engine.unknown_names(KNOWN) == []


@pytest.mark.parametrize(
    ("data", "line", "message", "mend"),
    [
        ("agents:\n  mail-bto: {}\n", 2, "No agent 'mail-bto'", "'mail-bot'"),
        ("agents:\n  zzz: {}\n", 2, "No agent 'zzz'", "register the agent"),
        ("teams:\n  financ: {}\n", 2, "team 'financ'", "'finance'"),
        ("tiers:\n  standart: {}\n", 2, "tier 'standart'", "'standard'"),
        (f"{AGENT}    models:\n      - demo\n      - clade-big\n", 5, "model alias 'clade-big'", "'claude-big'"),
        (f"{SERVER}      crn: {{max_risk: low}}\n", 4, "server 'crn'", "'crm'"),
        (f"{SERVER}      crm: {{max_risk: low, tools: [sendmail]}}\n", 4, "no tool 'sendmail'", "'send_mail'"),
        (f"{SERVER}      crm: {{max_risk: low, tools: [crm__find]}}\n", 4, "no tool 'crm__find'", "'find'"),
        (f"{SERVER}      crm: {{max_risk: low, tools: [transfer]}}\n", 4, "'crm' declares no tool 'transfer'", ""),
        (f"{SERVER}      desk: {{max_risk: low, tools: [bash]}}\n", 4, "no tool 'bash'", "'Bash'"),
    ],
)
def test_a_name_that_does_not_exist_is_a_warning(data: str, line: int, message: str, mend: str, tmp_path: Path) -> None:
    engine, problems = load(granting(tmp_path, data))
    assert engine is not None
    assert problems == []
    (found,) = engine.unknown_names(KNOWN)
    assert (found.severity, found.file, found.line) == ("warning", str(tmp_path / "grants/data.yaml"), line)
    assert message in found.message
    assert mend in found.mend


def test_a_tool_above_the_risk_of_its_grant_is_told(tmp_path: Path) -> None:
    data = f"{SERVER}      crm:\n        max_risk: low\n        tools:\n          - find\n          - send_mail\n"
    engine, problems = load(granting(tmp_path, data))
    assert engine is not None, problems
    known = msgspec.structs.replace(KNOWN, risks={"crm__find": "low", "crm__send_mail": "high"})
    ((_, line, said),) = told(engine.unknown_names(known), tmp_path)
    assert line == 8
    assert "its risk is high, above max_risk" in said


def test_names_are_told_beside_errors(tmp_path: Path) -> None:
    granting(tmp_path, f"{SERVER}      crn: {{max_risk: hihg}}\n      crm: {{max_risk: low, tools: find}}\n")
    assert load(tmp_path)[0] is None
    assert [one.line for one in Examined(tmp_path).unknown_names(KNOWN)] == [4]


def test_agents_that_only_the_gateway_knows_are_said_to_be_unchecked(tmp_path: Path) -> None:
    engine, _ = load(granting(tmp_path, "agents:\n  mail-bto: {}\n"))
    assert engine is not None
    files_only = Known(tools={}, models=frozenset(), agents=KNOWN.agents, agents_complete=False)
    (found,) = engine.unknown_names(files_only)
    assert "'mail-bot'" in found.mend
    assert "registered through the API" in found.mend


# ---------------------------------------------------------------- where the data can live


@pytest.mark.parametrize(
    ("file", "data", "line"),
    [
        ("grants/data.json", '{\n "agents": {\n  "mail-bot": {"models": "demo"}\n }\n}', 3),
        ("data.yaml", "grants:\n  agents:\n    mail-bot:\n      models: demo\n", 4),
        ("data.json", '{"grants": {"agents":\n {"payer": {"models": []}, "mail-bot": {\n "models": "demo"}}}}', 3),
        ("grants/agents/data.yaml", "mail-bot:\n  models: demo\n", 2),
        ("grants/agents/mail-bot/data.json", '{\n\n"models": "demo"}', 3),
        ("grants/data.yml", f"{AGENT}    models: demo\n", 3),
    ],
)
def test_grants_are_checked_wherever_their_data_stand(file: str, data: str, line: int, tmp_path: Path) -> None:
    more: dict[str, str | bytes] = {file: data, "grants/teams/data.yaml": "finance: {}\n"}
    engine, problems = load(granting(tmp_path, None, more))
    assert engine is None
    assert [(name, at) for name, at, _ in told(errors(problems), tmp_path)] == [(file, line)]


def test_items_of_a_list_in_json_have_lines_too(tmp_path: Path) -> None:
    data = '{"agents": {"mail-bot": {"models": [\n"demo",\n"clade-big"\n]}}}'
    engine, problems = load(granting(tmp_path, None, {"grants/data.json": data}))
    assert engine is not None, told(problems, tmp_path)
    assert [one.line for one in engine.unknown_names(KNOWN)] == [3]


@pytest.mark.parametrize("name", ["grnats", "Grants", "grants2"])
def test_a_folder_that_no_rule_reads_is_told(name: str, tmp_path: Path) -> None:
    more: dict[str, str | bytes] = {f"{name}/data.yaml": "agents: {mail-bot: {}}\n"}
    engine, problems = load(granting(tmp_path, "agents: {}\n", more))
    assert engine is not None
    (found,) = told(problems, tmp_path)
    assert found[:2] == (f"{name}/data.yaml", 1)
    assert "Did you mean data.grants?" in found[2]
    assert problems[0].severity == "warning"


def test_data_below_the_rules_own_package_are_told_where_nothing_reads_them(tmp_path: Path) -> None:
    more: dict[str, str | bytes] = {"gateway/data.yaml": "grants: {agents: {mail-bot: {}}}\n"}
    _, problems = load(granting(tmp_path, "agents: {}\n", more))
    assert ["data.gateway.grants" in one.message for one in problems] == [True]


@pytest.mark.parametrize("name", ["grants/agents.yaml", "grants/Data.yaml", "grants/more.json"])
def test_a_file_that_is_not_read_is_told(name: str, tmp_path: Path) -> None:
    engine, problems = load(granting(tmp_path, "agents: {}\n", {name: "{}"}))
    assert engine is not None
    assert [(file, "not read" in text) for file, _, text in told(problems, tmp_path)] == [(name, True)]


def test_a_schema_beside_the_policies_is_no_data(tmp_path: Path) -> None:
    engine, problems = load(granting(tmp_path, "agents: {}\n", {"input.schema.json": "{}"}))
    assert engine is not None
    assert problems == []


# ---------------------------------------------------------------- data of one's own


def test_fields_that_own_rules_read_are_left_alone(tmp_path: Path) -> None:
    rule = (
        'package gateway\n\ndeny contains {"rule": "region", "reason": "Elsewhere."} if {\n'
        "\tsome grant in granted\n\tgrant.region\n\tobject.get(grant, `max_calls`, 0) > 3\n}\n"
        'deny contains {"rule": "off", "reason": "Off."} if data.grants.off[input.agent.id]\n'
    )
    data = "off: {payer: true}\nagents:\n  mail-bot: {region: eu, max_calls: 4, reigon: eu}\n"
    engine, problems = load(granting(tmp_path, data, {"region.rego": rule}))
    assert engine is None
    ((_, line, text),) = told(errors(problems), tmp_path)
    assert line == 3
    assert "'reigon'" in text


def test_grants_that_no_rule_reads_have_no_shape(tmp_path: Path) -> None:
    entry = (
        "package gateway\n\n"
        'default decision := {"effect": "deny", "rules": ["none"], "reasons": ["No."]}\n\n'
        'decision := {"effect": "allow", "rules": ["ok"], "reasons": ["Ok."]} if data.people[input.user]\n'
    )
    engine, problems = load(folder(tmp_path, {"d.rego": entry, "data.yaml": "people: {ada: true}\ngrants: [1, 2]\n"}))
    assert engine is not None
    assert [one.severity for one in problems] == ["warning"]
    assert engine.unknown_names(KNOWN) == []


def test_a_file_full_of_errors_is_told_in_part(tmp_path: Path) -> None:
    many = {"agents": {f"a{number}": {"models": "demo"} for number in range(500)}}
    _, problems = load(granting(tmp_path, None, {"grants/data.json": json.dumps(many)}))
    assert 40 < len(problems) < 60
    unknown_agents = json.dumps({"agents": {name: {} for name in many["agents"]}})
    _, names = load(granting(tmp_path / "names", None, {"grants/data.json": unknown_agents}))
    assert names == []
    unknown = Examined(tmp_path / "names").unknown_names(KNOWN)
    assert 20 < len(unknown) < 40
    assert "475 more" in unknown[0].message


# ------------------------------------------------------------ fields that rules read themselves


MISPLACED = {
    "a server beside servers": f"{AGENT}    ledger: {{max_risk: high}}\nteams: {{}}",
    "a word of an entry": f"{AGENT}    rule: x",
    "a word of another data file": f"{AGENT}    payees: [acme-gmbh]",
    "of a server": f"{SERVER}      crm: {{max_risk: low, unattended_limit_cents: 5}}",
    "models at the top": "models: [demo]",
    "a server at the top": "ledger: {max_risk: low}",
}


@pytest.mark.parametrize("text", MISPLACED.values(), ids=MISPLACED)
def test_a_word_that_rules_read_elsewhere_is_no_field_of_a_grant(text: str, tmp_path: Path) -> None:
    root = tmp_path / "policies"
    shutil.copytree(POLICIES, root)
    (root / "grants" / "data.yaml").write_text(text)
    _, problems = load(root)
    assert [Path(one.file).name for one in errors(problems)] == ["data.yaml"], problems


OWN = {
    "named outright": 'deny contains {"rule": "r", "reason": "R."} if data.grants.agents[input.agent.id].region == "x"',
    "by a variable": 'deny contains {"rule": "r", "reason": "R."} if {\n\tsome grant in granted\n\tgrant.region == "x"\n}',
    "by object.get": 'place := object.get(data.grants.agents[input.agent.id], "region", "")',
    "through a rule": "mine := data.grants.agents[input.agent.id]\n\nplace := mine.region",
    "in a function": "place := where(data.grants.agents[input.agent.id])\n\nwhere(grant) := grant.region",
    "in another package": "import data.places\n\nplace := places.where(data.grants.agents[input.agent.id])",
    "at the top": "place := data.grants.region",
}


@pytest.mark.parametrize("how", OWN)
def test_a_field_that_a_rule_reads_of_the_grants_is_the_folders_own(how: str, tmp_path: Path) -> None:
    root = tmp_path / "policies"
    shutil.copytree(POLICIES, root)
    text = "region: x" if how == "at the top" else f"{AGENT}    region: x"
    (root / "grants" / "data.yaml").write_text(text)
    (root / "own.rego").write_text(f"package gateway\n\n{OWN[how]}\n")
    (root / "places.rego").write_text("package places\n\nwhere(grant) := grant.region\n")
    _, problems = load(root)
    assert errors(problems) == []
