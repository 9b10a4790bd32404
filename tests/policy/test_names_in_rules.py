"""Names that rules compare with: what no registry, configuration or enumeration has is told, with its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.policy import load
from gateway.policy.known import Known
from tests.policy.asking import POLICIES, folder

KNOWN = Known(
    tools={
        "crm": frozenset({"send_mail", "find", "create_contact"}),
        "ledger": frozenset({"transfer", "close_account"}),
        "claude-code": frozenset({"Agent", "Task", "Bash"}),
        "git": frozenset(),
    },
    models=frozenset({"demo", "big"}),
    providers=frozenset({"openai"}),
    agents=frozenset({"mail-bot", "demo-agent"}),
    teams=frozenset({"finance"}),
    tiers=frozenset({"standard", "trusted"}),
    use_cases=frozenset({"pay-suppliers"}),
    groups=frozenset({"treasury"}),
)

HEAD = "package gateway\n\nimport future.keywords.not\nimport input.target as t\n\n"
MAIL = 'deny contains {"rule": "mail", "reason": "No mail."} if {\n'


def told(root: Path, text: str, data: str = "", known: Known = KNOWN) -> list[tuple[str, int, str]]:
    """Warnings about a rule file beside the shipped policies: file, line, text."""
    shutil.copytree(POLICIES, root)
    folder(root, {"crm/crm.rego": HEAD + text, **({"crm/data.yaml": data} if data else {})})
    engine, problems = load(root)
    assert engine is not None, [str(one) for one in problems]
    found = [*problems, *engine.unknown_names(known)]
    assert all(one.severity == "warning" for one in found)
    return [(Path(one.file).relative_to(root).as_posix(), one.line, f"{one.message} {one.mend}") for one in found]


# A condition in line 7 that names something that is not there, and what was meant.
WRONG: dict[str, tuple[str, str]] = {
    "a tool": ('input.target.id == "crm__sendmail"', "'crm__send_mail'"),
    "a tool, reversed": ('"crm__sendmail" == input.target.id', "'crm__send_mail'"),
    "a tool that is excluded": ('input.target.id != "crm__sendmail"', "'crm__send_mail'"),
    "a tool by its bare name": ('input.target.id == "send_mail"', "'crm__send_mail'"),
    "a tool through an import": ('t.id == "crm__sendmail"', "'crm__send_mail'"),
    "a tool in brackets": ('input["target"]["id"] == "crm__sendmail"', "'crm__send_mail'"),
    "a tool in raw text": ("input.target.id == `crm__sendmail`", "'crm__send_mail'"),
    "a tool, unified": ('input.target.id = "crm__sendmail"', "'crm__send_mail'"),
    "one of a set": ('input.target.id in {"crm__find", "crm__sendmail"}', "'crm__send_mail'"),
    "one of an array": ('input.target.id in ["crm__sendmail"]', "'crm__send_mail'"),
    "none of a set": ('not input.target.id in {"crm__sendmail"}', "'crm__send_mail'"),
    "a variable": ('x := "crm__sendmail"; input.target.id == x', "'crm__send_mail'"),
    "a field in a variable": ('x := input.target.id; x == "crm__sendmail"', "'crm__send_mail'"),
    "a part of the input in a variable": ('x := input.target; x.id == "crm__sendmail"', "'crm__send_mail'"),
    "some of a set": ('some x in {"crm__sendmail"}; input.target.id == x', "'crm__send_mail'"),
    "every of a set": ('every x in {"crm__sendmail"} { x != input.target.id }', "'crm__send_mail'"),
    "a key of an object": ('{"crm__sendmail": 5}[input.target.id] > 3', "'crm__send_mail'"),
    "an own function": ('crm_is("crm__sendmail")', "'crm__send_mail'"),
    "a beginning": ('startswith(input.target.id, "crn__")', "starting with 'crn__'"),
    "an end": ('endswith(t.id, "_mial")', "ending in '_mial'"),
    "a part": ('contains(t.id, "__sned")', "containing '__sned'"),
    "an expression": ('regex.match("^crm__sendmail$", t.id)', "matching '^crm__sendmail$'"),
    "a field with a default": ('object.get(input.target, "id", "") == "crm__sendmail"', "'crm__send_mail'"),
    "a field below with a default": ('object.get(input, ["target", "id"], "") == "crm__sendmail"', "'crm__send_mail'"),
    "a pattern": ('glob.match("crm__create*s", [], t.id)', "matching 'crm__create*s'"),
    "several beginnings": ('strings.any_prefix_match(t.id, {"crm__f", "lgr__"})', "starting with 'lgr__'"),
    "a tool of a server": ('t.server == "crm"; t.tool == "transfer"', "'crm' declares no tool 'transfer'"),
    "a bare tool": ('t.tool == "snd_mail"', "'send_mail'"),
    "a server": ('t.server == "crn"', "'crm'"),
    "a tool of another server": ('t.id == "crn__find"', "Did you mean 'crm'?"),
    "a model": ('t.alias in {"demo", "bgi"}', "'big'"),
    "a model by id": ('t.id == "dmeo"', "'demo'"),
    "a provider": ('t.provider == "opneai"', "'openai'"),
    "an agent": ('input.agent.id == "mail-bto"', "'mail-bot'"),
    "a team": ('input.agent.team == "financ"', "'finance'"),
    "a tier": ('not input.agent.tier == "trustd"', "'trusted'"),
    "a use case": ('input.agent.use_case == "pay-supliers"', "'pay-suppliers'"),
    "an effect": ('t.effect == "wirte"', "'write'"),
    "a risk": ('t.risk in {"high", "critcal"}', "'critical'"),
    "a kind of tool": ('t.kind == "mpc"', "'mcp'"),
    "a kind of action": ('input.action.kind in {"tool.call", "tool.porpose"}', "'tool.propose'"),
    "an environment": ('input.environment == "production"', "dev, stage, prod"),
    "a status": ('input.agent.status == "suspnded"', "'suspended'"),
    "a setting": ('input.settings.undeclared_client_tools == "observed"', "'observe'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_name_that_nothing_has_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    condition, meant = WRONG[name]
    text = f"{MAIL}\t{condition}\n}}\n\ncrm_is(id) if input.target.id == id\n"
    ((file, line, said),) = told(tmp_path / "p", text)
    assert (file, line) == ("crm/crm.rego", 7)
    assert meant in said


RIGHT = [
    'input.target.id == "crm__send_mail"',
    'input.target.id in {"crm__find", "ledger__transfer", "demo", "claude-code__Bash"}',
    'startswith(input.target.id, "crm__")',
    'regex.match("^crm__", input.target.id)',
    'glob.match("*__create_{contact,lead}", [], input.target.id)',
    'input.target.id == "client__Whatever"',
    'input.target.server == "client"',
    'input.target.server in {"crm", "git"}',
    't.server == "crm"; t.tool == "find"',
    'input.agent.id in {"mail-bot"}',
    'input.agent.tier == "standard"',
    'input.user == "ada"',
    'input.action.arguments.id == "crm__sendmail"',
    'input.claimed.purpose == "crm__sendmail"',
    'input.target.owner == "crm__sendmail"',
    "some x in input.action.arguments.names; input.target.id == x",
    "input.action.arguments.names[input.target.id]",
    'input.target.id == concat("__", [input.target.server, "send_mail"])',
]


@pytest.mark.parametrize("condition", RIGHT)
def test_what_is_there_or_cannot_be_known_is_left_alone(condition: str, tmp_path: Path) -> None:
    assert told(tmp_path / "p", f"{MAIL}\t{condition}\n}}\n") == []


@pytest.mark.parametrize(
    ("helper", "condition", "line"),
    [
        ('crm_risky := {"crm__find", "crm__sendmail"}', "input.target.id in crm_risky", 10),
        ('crm_risky contains "crm__sendmail"', "input.target.id in crm_risky", 10),
        ('crm_risky["crm__sendmail"] := 5', "crm_risky[input.target.id] > 3", 10),
        ('crm_limit := {"crm__sendmail": 5}', "crm_limit[input.target.id] > 3", 10),
        ('crm_limit("crm__sendmail") := 5', "crm_limit(input.target.id) > 3", 10),
        ('crm_this if input.target.id == "crm__sendmail"', "crm_this", 10),
        ("crm_id := input.target.id", 'crm_id == "crm__sendmail"', 7),
        ("crm_one(id, names) if id in names", 'crm_one(input.target.id, {"crm__sendmail"})', 7),
        ("crm_one(names) if crm_two(names)\n\ncrm_two(all) if input.target.id in all", 'crm_one({"crm__sendmail"})', 7),
    ],
)
def test_names_are_followed_through_helpers(helper: str, condition: str, line: int, tmp_path: Path) -> None:
    text = f"{MAIL}\t{condition}\n}}\n\n{helper}\n"
    ((_, at, said),) = told(tmp_path / "p", text)
    assert (at, "'crm__send_mail'" in said) == (line, True)


@pytest.mark.parametrize(
    ("condition", "data", "line"),
    [
        ("input.target.id in data.crm.risky", "risky:\n  - crm__find\n  - crm__sendmail\n", 3),
        ("data.crm.limits[input.target.id] > 3", "limits:\n  crm__find: 1\n  crm__sendmail: 2\n", 3),
        ("some x in data.crm.risky; x.id == input.target.id", "risky:\n  - id: crm__find\n  - id: crm__sendmail\n", 3),
        ("input.target.id == data.crm.only", "only: crm__sendmail\n", 1),
        ("not input.target.id in data.crm.open", "open: [crm__find,\n crm__sendmail]\n", 2),
    ],
)
def test_names_in_data_are_told_at_their_line_there(condition: str, data: str, line: int, tmp_path: Path) -> None:
    ((file, at, said),) = told(tmp_path / "p", f"{MAIL}\t{condition}\n}}\n", data)
    assert (file, at) == ("crm/data.yaml", line)
    assert "'crm__send_mail'" in said


def test_a_function_that_is_called_with_other_fields_is_judged_call_by_call(tmp_path: Path) -> None:
    text = (
        f'{MAIL}\tcrm_same(input.target.id, "crm__find")\n\tcrm_same(input.agent.id, "mail-bot")\n'
        '\tcrm_same(input.agent.id, "crm__find")\n}\n\ncrm_same(a, b) if a == b\n'
    )
    assert [(line, "agent 'crm__find'" in said) for _, line, said in told(tmp_path / "p", text)] == [(9, True)]


def test_rules_about_a_server_that_is_not_there_are_told_of_once(tmp_path: Path) -> None:
    fewer = Known(tools={"crm": frozenset()}, models=frozenset({"demo"}), agents=KNOWN.agents, tiers=KNOWN.tiers)
    found = told(tmp_path / "p", "", known=fewer)
    rules = [(file, said) for file, _, said in found if file.endswith(".rego")]
    assert [file for file, _ in rules] == ["claude-code/claude_code.rego", "ledger/ledger.rego"]
    assert "'ledger'" in rules[1][1]


def test_a_tool_that_agents_bring_along_may_be_meant_where_undeclared_ones_pass(tmp_path: Path) -> None:
    observing = Known(
        tools=KNOWN.tools, models=KNOWN.models, agents=KNOWN.agents, tiers=KNOWN.tiers, undeclared="observe"
    )
    text = f'{MAIL}\tinput.target.tool in {{"WebFetch", "Bahs"}}\n}}\n'
    assert ["'Bahs'" in said for _, _, said in told(tmp_path / "p", text, known=observing)] == [True]


def test_tests_may_name_what_they_like(tmp_path: Path) -> None:
    shutil.copytree(POLICIES, tmp_path / "p")
    text = 'package crm_test\n\ntest_x if "crm__sendmail" == input.target.id with input as {"target": {"id": "crm__sendmail"}}\n'
    engine, problems = load(folder(tmp_path / "p", {"crm_test.rego": text}))
    assert engine is not None
    assert [*problems, *engine.unknown_names(KNOWN)] == []
