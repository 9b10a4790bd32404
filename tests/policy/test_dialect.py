"""The dialect: what is refused when a folder is loaded, on which line, and what is told to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.policy import load
from gateway.policy import test as run_tests
from gateway.policy.builtins import ALLOWED
from gateway.policy.rego import Machine, RegoFault
from tests.policy.asking import POLICIES, answer, folder

ENTRY = f"package gateway\n\ndefault decision := {answer('deny')}\n"

# name: (the file's text from line 4 on, the line of the problem, a word of the message, a word of the mend)
REFUSED: dict[str, tuple[str, int, str, str]] = {
    "not without its import": ("\na if {\n\tnot input.user\n}\n", 6, "`not`", "import future.keywords.not"),
    "not in a comprehension": ("a := [1 | not input.user]\n", 4, "`not`", "import future.keywords.not"),
    "a fraction": ("a if input.now_ns > 1.5\n", 4, "1.5", "whole numbers"),
    "a whole fraction": ("a := 100.0\n", 4, "100.0", "whole numbers"),
    "an exponent": ("a := 1e3\n", 4, "1e3", "whole numbers"),
    "a number too large": ("a := 9007199254740993\n", 4, "too large", "2^53"),
    "a Perl class": ("a if regex.match(`^\\w+$`, input.door)\n", 4, "\\w", "[A-Za-z0-9_]"),
    "a Perl class in quotes": ('a if regex.match("\\\\d", input.door)\n', 4, "\\d", "[0-9]"),
    "a word boundary": ("b := `x\\b`\na if regex.match(b, input.door)\n", 4, "\\b", "[A-Za-z0-9_]"),
    "flags in sprintf": ('a := sprintf("%05d", [input.now_ns])\n', 4, "flags", "%v"),
    "whole numbers alone": ('a := sprintf("%d", [input.now_ns])\n', 4, "verbs", "%v"),
    "text alone": ('a := sprintf("%s", [input.door])\n', 4, "verbs", "%v"),
    "small letters": ("a := lower(input.door)\n", 4, "lower", "list the spellings"),
    "an odd verb": ('a := sprintf("%x", [input.now_ns])\n', 4, "verbs", "%v"),
    "too few values": ('a := sprintf("%v %v", [input.door])\n', 4, "names 2 values and gets 1", "each verb"),
    "too many values": ('a := sprintf("100%% %v", [1, 2])\n', 4, "names 1 values and gets 2", "each verb"),
    "a format from elsewhere": ("a := sprintf(input.door, [1])\n", 4, "format", "as text"),
    "the network": ('\n\na := http.send({"method": "get", "url": "http://x"})\n', 6, "http.send", "no network"),
    "the clock": ("a := time.now_ns()\n", 4, "time.now_ns", "input.now_ns"),
    "dice": ('a := rand.intn("x", 6)\n', 4, "rand.intn", "dice"),
    "the environment": ("a := opa.runtime()\n", 4, "opa.runtime", "input"),
    "to_number": ("a := to_number(input.door)\n", 4, "to_number", "is_number"),
    "object.subset": ("a if object.subset([1], [])\n", 4, "object.subset", "every"),
    "a token": ("a := io.jwt.decode(input.door)\n", 4, "io.jwt.decode", "gateway verify"),
    "a network range": ('a if net.cidr_contains("10.0.0.0/8", input.door)\n', 4, "net.cidr_contains", "network class"),
    "print": ('a if print("x")\n', 4, "print", "explain"),
    "a function nobody has": ("a if statswith(input.door, `x`)\n", 4, "statswith", "startswith"),
    "a function of another package": (
        "a if data.gateway.frobnicate(1)\n",
        4,
        "no function data.gateway.frobnicate",
        "name",
    ),
    "a rule called as a function": ("b := 1\na if b(1)\n", 5, "b is not known", "functions"),
    "a misspelt input": ('a if input.target.efect == "write"\n', 4, "input.target.efect", "'effect'"),
    "a misspelt root": ('a if input.acton.kind == "x"\n', 4, "input.acton", "'action'"),
    "a misspelt input in brackets": ('a if input["agnt"].id == "x"\n', 4, "input.agnt", "'agent'"),
    "a field that no target has": ("a if input.target.colour\n", 4, "input.target.colour", "risk"),
    "a misspelt data path": ("a if data.granst.x\n", 4, "data.granst", "Add it"),
    "a rule that is not there": ("a if data.gateway.decisoin\n", 4, "data.gateway.decisoin", "'decision'"),
    "a second default": ("default a := 1\ndefault a := 2\n", 5, "second default", "Keep one"),
    "an unsafe variable": ("\na if {\n\tx > 1\n}\n", 6, "unsafe", "Correct"),
    "a syntax error": ("\na if {\n\tx := \n}\n", 6, "Does not parse", "Correct"),
    "and": ("a if { true and input.user }\n", 4, "Does not parse", "one condition a line"),
    "or": ("a if { input.user or input.door }\n", 4, "Does not parse", "second rule"),
    "a template string": ('a := $"x"\n', 4, "Does not parse", "sprintf"),
    "an old rule": ("a { true }\n", 4, "Does not parse", "version 1"),
    "an import too late": ("a := 1\nimport data.gateway\n", 5, "Does not parse", "at the top"),
    "a recursion": ("a := b\nb := a\n", 4, "ecursion", "Correct"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_in_the_dialect_is_told_with_its_line_and_its_mend(name: str, tmp_path: Path) -> None:
    text, line, word, mend = REFUSED[name]
    files: dict[str, str | bytes] = {"gateway/decision.rego": ENTRY + text, "input/data.yaml": "x: 1"}
    engine, problems = load(folder(tmp_path, files))
    assert engine is None
    found = [one for one in problems if one.line == line and word in one.message]
    assert found, [str(one) for one in problems]
    assert mend in found[0].mend
    assert found[0].file == str(tmp_path / "gateway/decision.rego")
    assert "\n" not in str(found[0])
    assert "backtrace" not in str(found[0])


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "gateway/decision.rego": ENTRY + "a := 1.5\nb := time.now_ns()\nc := input.x\n",
        "other.rego": "package gateway\nd := {{",
        "third.rego": "package gateway\n\ne if { not input.user }\n",
        "data.yaml": "rate: 0.5\n",
        "bad/data.json": '{\n "a": 1,\n}',
        "latin.rego": b"package gateway\n# caf\xe9\n",
    }
    engine, problems = load(folder(tmp_path, files))
    assert engine is None
    told = {(Path(one.file).relative_to(tmp_path).as_posix(), one.line) for one in problems}
    assert told >= {
        ("gateway/decision.rego", 4),
        ("other.rego", 2),
        ("third.rego", 3),
        ("data.yaml", 1),
        ("bad/data.json", 3),
        ("latin.rego", 2),
    }
    assert problems == sorted(problems, key=lambda one: (one.file, one.line, one.message))


ALLOWED_TEXTS = {
    "not with its import": "package gateway\nimport future.keywords.not\na if not input.user\n",
    "arguments are free": "package gateway\na if input.action.arguments.deep.er[0].x == 1\n",
    "labels, facts and limits are free": "package gateway\na if input.agent.labels.x == input.session.facts.y\n",
    "an alias of input": "package gateway\nimport input.target as t\na if t.effect == `read`\n",
    "an own function": "package gateway\nf(x) := x + 1\na := f(1)\n",
    "a variable step": "package gateway\na contains k if input.agent[k] == 1\n",
    "sprintf": 'package gateway\na := sprintf("%v is 100%% %v, %v", [1, "x", 2])\n',
    "percent in other text": 'package gateway\na := "100%x"\n',
    "a digit in a name": "package gateway\na1e3 := 1\nb := a1e3\n",
    "a default function": "package gateway\ndefault f(_) := 3\nf(x) := x if x > 5\n",
    "a set in two files": "package gateway\ndeny contains 1 if false\n",
    "partial objects": 'package gateway\na.b[x] := 1 if some x in ["p", "q"]\na.c contains 1\nd[x] := 1 if x := "z"\n',
    "every": "package gateway\na if every x in input.target.data_classes { x == `public` }\n",
    "with": 'package gateway\na if decision.effect == "deny" with input.user as null\n',
    "rego.v1": "package gateway\nimport rego.v1\na := 1\n",
}


@pytest.mark.parametrize("name", ALLOWED_TEXTS)
def test_what_is_in_the_dialect_loads(name: str, tmp_path: Path) -> None:
    entry = ENTRY + "deny contains 2 if false\n"
    engine, problems = load(folder(tmp_path, {"d.rego": entry, "x.rego": ALLOWED_TEXTS[name]}))
    assert [str(one) for one in problems] == []
    assert engine is not None


def test_the_engine_has_every_function_that_is_allowed() -> None:
    missing = []
    for name in sorted(ALLOWED):
        machine = Machine({"x.rego": f"package p\nr := {name}()"}, "{}")
        try:
            machine.ask("data.p.r", "{}")
        except RegoFault as fault:
            if "could not find function" in fault.message:
                missing.append(name)
    assert missing == []


def test_the_readme_of_the_policies_lists_every_function() -> None:
    readme = (POLICIES / "README.md").read_text()
    assert [name for name in sorted(ALLOWED) if f"`{name}`" not in readme] == []


ENTRY_POINTS = {
    "another package": "package other\ndefault decision := {}\n",
    "no default": f"package gateway\ndecision := {answer('deny')} if true\n",
    "a default that allows": f"package gateway\ndefault decision := {answer('allow')}\n",
    "a default that is computed": 'package gateway\ne := "deny"\ndefault decision := {"effect": e}\n',
    "a default that is a word": 'package gateway\ndefault decision := "deny"\n',
    "a wrong shape": 'package gateway\ndefault decision := {"effect": "deny"}\n',
    "a wrong shape for one kind": ENTRY + 'decision := "allow" if input.action.kind == "tool.list"\n',
    "a set": f"package gateway\ndecision contains {answer('deny')}\n",
}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_entry_point_must_be_there_and_deny_by_default(name: str, tmp_path: Path) -> None:
    engine, problems = load(folder(tmp_path, {"d.rego": ENTRY_POINTS[name]}))
    assert engine is None
    assert len(problems) >= 1
    assert problems[0].mend


def test_data_may_not_stand_where_a_rule_stands(tmp_path: Path) -> None:
    data = {"gateway/data.yaml": "decision: {effect: allow, rules: [r], reasons: [x]}"}
    engine, problems = load(folder(tmp_path, {"d.rego": ENTRY, **data}))
    assert engine is None
    assert "replace the rule" in problems[0].message


@pytest.mark.parametrize("data", ["gateway: 1", "gateway: [1]", "gateway: {decision: 1}"])
def test_data_may_not_stand_where_a_package_stands(tmp_path: Path, data: str) -> None:
    engine, problems = load(folder(tmp_path, {"d.rego": ENTRY, "data.yaml": data}))
    assert engine is None
    assert problems


def test_a_helper_may_not_be_mixed_from_two_files(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "d.rego": ENTRY,
        "one.rego": "package gateway\nlisted if input.door == `a`\n",
        "two.rego": "package gateway\n\nlisted if input.door == `b`\n",
    }
    engine, problems = load(folder(tmp_path, files))
    assert engine is None
    assert (Path(problems[0].file).name, problems[0].line) == ("two.rego", 3)
    assert "one.rego" in problems[0].message


def test_a_rule_and_a_package_may_not_share_a_name(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"d.rego": ENTRY + "sub := 1\n", "s.rego": "package gateway.sub\nx := 1\n"}
    engine, problems = load(folder(tmp_path, files))
    assert engine is None
    assert any("package" in one.message for one in problems)


def test_tests_may_print_and_give_half_an_input_and_do_not_matter_to_the_engine(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "d.rego": ENTRY,
        "d_test.rego": (
            "package d_test\nimport data.gateway\n"
            'test_good if { print("x"); gateway.decision.effect == "deny" with input as {"odd": 1} }\n'
            'test_bad if { gateway.decision.effect == "allow" with input as {} }\n'
            "test_breaks if { 1 / count([]) > 0 }\n"
            "helper := 1\n"
        ),
    }
    engine, problems = load(folder(tmp_path, files))
    assert problems == []
    assert engine is not None
    trials, problems = run_tests(tmp_path)
    assert problems == []
    assert [(one.name, one.passed, one.line) for one in trials] == [
        ("data.d_test.test_good", True, 3),
        ("data.d_test.test_bad", False, 4),
        ("data.d_test.test_breaks", False, 5),
    ]
    assert "zero" in trials[2].message


def test_tests_with_problems_are_not_run(tmp_path: Path) -> None:
    for text in (
        "package t\ntest_a if {{",
        "package t\ntest_a if true\ntest_a if false\n",
        "package t\nx := http.send(1)",
    ):
        trials, problems = run_tests(folder(tmp_path, {"d.rego": ENTRY, "t_test.rego": text}))
        assert trials == []
        assert problems


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("ledger/ledger.rego", "data.ledger.payees[input.action.arguments.to]", "input.action.arguments.to"),
        ("ledger/ledger.rego", "\tamount > 0\n", ""),
        ("ledger/ledger.rego", "\tis_number(amount)\n\tfloor(amount) == amount\n", ""),
        ("ledger/ledger.rego", ', "hidden": true', ""),
        ("ledger/ledger.rego", "amount_cents <= data.ledger.unattended_limit_cents", "amount_cents <= 20000"),
        ("gateway/rules.rego", "count(tool_granted) == 0", "count(tool_granted) == 7"),
        ("gateway/decision.rego", "count(deny) > 0", "count(deny) > 7"),
        ("gateway/grants.rego", "risk_rank[input.target.risk] <= risk_rank[entry.max_risk]", "entry.max_risk"),
        ("gateway/otherwise.rego", "\tnot unattended\n", ""),
    ],
)
def test_the_rego_tests_notice_a_loosened_rule(tmp_path: Path, file: str, old: str, new: str) -> None:
    for path in POLICIES.rglob("*"):
        if path.suffix in (".rego", ".yaml"):
            folder(tmp_path, {path.relative_to(POLICIES).as_posix(): path.read_bytes()})
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1))
    trials, problems = run_tests(tmp_path)
    assert problems == []
    assert [one.name for one in trials if not one.passed]
