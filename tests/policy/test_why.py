"""A test that fails says which line did not hold and the values there: expected and got."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.policy import Trial
from gateway.policy import test as run_tests
from tests.policy.asking import POLICIES, folder

RULES = """package gateway

import future.keywords.not

default decision := {"effect": "deny", "rules": ["none"], "reasons": ["No."], "hidden": false}

decision := {"effect": "escalate", "rules": ["asks", "both"], "reasons": ["Ask."]} if input.now_ns > 100
"""

HEAD = """package d_test

import data.gateway.decision
import future.keywords.not

asked(amount) := {"now_ns": amount, "to": data.payees}

"""


def failing(root: Path, text: str, *, line: int = 9) -> Trial:
    """The only test of a folder; `line` is the one that must be named."""
    trials, problems = run_tests(
        folder(root, {"d.rego": RULES, "d_test.rego": HEAD + text, "data.yaml": "payees: [acme]"})
    )
    assert [str(one) for one in problems] == []
    (failed,) = [one for one in trials if not one.passed]
    assert failed.failed_line == line, failed
    return failed


@pytest.mark.parametrize(
    ("statement", "expected", "got"),
    [
        ('decision.effect == "allow" with input as asked(200)', '"allow"', '"escalate"'),
        ('"allow" == decision.effect with input as asked(200)', '"allow"', '"escalate"'),
        ('decision.rules == ["asks"] with input as asked(200)', '["asks"]', '["asks", "both"]'),
        ('decision.effect = "allow" with input as asked(5)', '"allow"', '"deny"'),
        ("decision.rules == expected_rules with input as asked(200)", '["asks"]', '["asks", "both"]'),
        ("count(decision.rules) == 1 with input as asked(200)", "1", "2"),
        ("decision.hidden == true with input as asked(5)", "true", "false"),
        ("decision.hidden == true with input as asked(200)", "true", "undefined"),
        ('decision.effect == "allow" with input as asked(5) with data.payees as ["x"]', '"allow"', '"deny"'),
        ('{rule | some rule in decision.rules} == {"asks"} with input as asked(200)', '["asks"]', '["asks", "both"]'),
        ('[x | some x in ["a"]; x != "b"] == ["c"]', '["c"]', '["a"]'),
        ("1 + 2 == 4", "4", "3"),
        ('`a"b` == "a\\"c"', '"a\\"c"', '"a\\"b"'),
    ],
)
def test_both_sides_of_a_comparison_are_shown(statement: str, expected: str, got: str, tmp_path: Path) -> None:
    failed = failing(tmp_path, f'expected_rules := ["asks"]\ntest_x if {statement}\n')
    assert (failed.expected, failed.got) == (expected, got)
    assert f"expected {expected}, got {got}" in failed.message
    assert statement in failed.message


def test_of_several_lines_the_one_that_is_false_is_named(tmp_path: Path) -> None:
    text = (
        "test_x if {\n\tanswer := decision with input as asked(200)\n"
        '\tanswer.effect == "escalate"\n\tanswer.rules == ["asks"]\n\tanswer.reasons == []\n}\n'
    )
    failed = failing(tmp_path, text, line=11)
    assert (failed.line, failed.expected, failed.got) == (8, '["asks"]', '["asks", "both"]')
    assert 'answer is {"effect": "escalate"' in failed.message


@pytest.mark.parametrize(
    ("statements", "line", "said"),
    [
        ('contains(answer.reasons[0], "Never")', 10, 'answer.reasons[0] is "Ask."'),
        ("not answer.effect", 10, 'expected this not to hold, but it is "escalate"'),
        ('not answer.effect == "escalate"', 10, 'left is "escalate", right is "escalate"'),
        ("answer.hidden", 10, "expected true, got undefined"),
        ('answer.effect != "escalate"', 10, 'left is "escalate", right is "escalate"'),
        ("count(answer.rules) > 5", 10, "left is 2, right is 5"),
        ('"none" in answer.rules', 10, '"none" is "none", answer.rules is ["asks", "both"]'),
        ('some rule in answer.rules\n\trule == "none"', 11, 'expected "none"'),
        ("some one in answer.obligations", 10, "answer.obligations is undefined"),
        ("more := answer.nothing", 10, "answer.nothing is undefined"),
        ("is_string(answer.rules)", 10, "it is false, answer.rules is"),
        ("1 / count([]) > 0", 10, "zero"),
    ],
)
def test_every_kind_of_line_is_explained(statements: str, line: int, said: str, tmp_path: Path) -> None:
    text = f"test_x if {{\n\tanswer := decision with input as asked(200)\n\t{statements}\n}}\n"
    assert said in failing(tmp_path, text, line=line).message


def test_every_is_followed_to_the_member_that_fails(tmp_path: Path) -> None:
    text = (
        "test_x if {\n\tevery amount in [200, 50, 300] {\n\t\tanswer := decision with input as asked(amount)\n"
        '\t\tanswer.effect == "escalate"\n\t\tanswer.rules == ["asks", "both"]\n\t}\n}\n'
    )
    failed = failing(tmp_path, text, line=11)
    assert (failed.expected, failed.got) == ('"escalate"', '"deny"')
    assert "amount is 50" in failed.message


def test_every_over_an_object_and_over_nothing(tmp_path: Path) -> None:
    text = 'test_x if {\n\tevery name, amount in {"a": 200, "b": 3} {\n\t\tamount > 100\n\t}\n}\n'
    assert "amount is 3" in failing(tmp_path / "object", text, line=10).message
    text = "test_x if {\n\tevery amount in input.nothing {\n\t\tamount > 100\n\t}\n}\n"
    files: dict[str, str | bytes] = {
        "d.rego": RULES,
        "d_test.rego": HEAD + text,
        "data.yaml": "nothing_there: {b: 1}\npayees: []",
    }
    trials, _ = run_tests(folder(tmp_path / "nothing", files))
    assert "undefined" in trials[0].message


@pytest.mark.parametrize(
    "text",
    [
        "test_x if passes(5)\n\npasses(amount) if {\n\tanswer := decision with input as asked(amount)\n\tanswer.effect == \"escalate\"\n}\n",
        "amount := 5\n\npasses if {\n\tanswer := decision with input as asked(amount)\n\tanswer.effect == \"escalate\"\n}\n\ntest_x if passes\n",
        "test_x if {\n\ty := answered(5)\n}\n\nanswered(y) := z if {\n\tz := decision with input as asked(y)\n\tz.effect == \"escalate\"\n}\n",
    ],
)  # fmt: skip
def test_helpers_of_the_test_are_followed(text: str, tmp_path: Path) -> None:
    line = 8 + next(at for at, one in enumerate(text.splitlines()) if "escalate" in one)
    failed = failing(tmp_path, text, line=line)
    assert (failed.expected, failed.got) == ('"escalate"', '"deny"')


def test_what_a_test_says_of_itself_cannot_break_the_search(tmp_path: Path) -> None:
    text = "test_x if false\n\ntest_y if { some x, y; x = 1; y = 2; x == y }\n\ntest_z := 3\n\ntest_w := 1 if { false } else := 2\n"
    trials, problems = run_tests(
        folder(tmp_path, {"d.rego": RULES, "d_test.rego": HEAD + text, "data.yaml": "payees: []"})
    )
    assert problems == []
    assert [one.passed for one in trials] == [False] * 4
    assert all(one.message for one in trials)
    assert (trials[1].expected, trials[1].got) == ("2", "1")


def test_values_are_cut(tmp_path: Path) -> None:
    failed = failing(
        tmp_path, 'long := concat("", [x | some _ in numbers.range(1, 5000); x := "x"])\ntest_x if long == "y"\n'
    )
    assert len(failed.message) < 1000
    assert failed.got == json.dumps("x" * 5000)


# ---------------------------------------------------------------- the shipped tests

OTHER_GRANTS = {
    "grants/data.yaml": "agents:\n  someone: {models: [other], servers: {crm: {max_risk: low}}}\nteams: {}\ntiers: {}\n",
    "ledger/data.yaml": "payees: {nobody: {}}\nunattended_limit_cents: 7\n",
}


@pytest.mark.parametrize("changed", [*OTHER_GRANTS, "both", "unattended"])
def test_the_shipped_tests_pass_whatever_was_granted(changed: str, tmp_path: Path) -> None:
    for path in POLICIES.rglob("*"):
        if path.suffix in (".rego", ".yaml"):
            folder(tmp_path, {path.relative_to(POLICIES).as_posix(): path.read_bytes()})
    if changed == "unattended":
        everything = "max_risk: critical, unattended: [read, write, egress]"
        servers = ", ".join(f"{server}: {{{everything}}}" for server in ("git", "ledger", "claude-code", "crm"))
        grants = "".join(
            f"{section}: {{{name}: {{models: ['*'], servers: {{{servers}}}}}}}\n"
            for section, name in (("agents", "demo-agent"), ("teams", "finance"), ("tiers", "standard"))
        )
        folder(tmp_path, {"grants/data.yaml": grants})
    else:
        folder(tmp_path, {name: text for name, text in OTHER_GRANTS.items() if changed in (name, "both")})
    trials, problems = run_tests(tmp_path)
    assert problems == []
    assert [f"{one.name}: {one.message}" for one in trials if not one.passed] == []
    assert len(trials) > 30


def test_failures_beyond_the_first_ones_say_that_they_are_not_explained(tmp_path: Path) -> None:
    tests = "".join(f"test_{number} if {number} == 99\n\n" for number in range(22))
    trials, _ = run_tests(folder(tmp_path, {"d.rego": RULES, "d_test.rego": HEAD + tests, "data.yaml": "payees: [a]"}))
    explained = [one for one in trials if "expected" in one.message]
    assert (len(trials), len(explained)) == (22, 20)
    assert all("the first 20 failures only" in one.message for one in trials if one not in explained)
