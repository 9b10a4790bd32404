"""Rules that decide nothing: in a package that nothing imports, or under a name that the decision does not read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.documents import Problem
from gateway.policy import load
from gateway.policy import test as run_tests
from tests.policy.asking import POLICIES, folder

RULE = '{"rule": "mail_outside", "reason": "Only to us."}'
DENY = f'\ndeny contains {RULE} if input.target.id == "mail__send"\n'


def loaded(root: Path, files: dict[str, str]) -> list[tuple[str, int, str, str]]:
    """What is said of the shipped rules with these files: file, line, severity, text."""
    shutil.copytree(POLICIES / "gateway", root / "gateway")
    shutil.copytree(POLICIES / "grants", root / "grants")
    engine, problems = load(folder(root, dict(files)))
    assert (engine is None) == any(one.severity == "error" for one in problems)
    return [_told(one, root) for one in problems]


def _told(one: Problem, root: Path) -> tuple[str, int, str, str]:
    return Path(one.file).relative_to(root).as_posix(), one.line, one.severity, f"{one.message} {one.mend}"


@pytest.mark.parametrize("package", ["crm", "gatway", "gateway.rules", "gatway.rules", "Gateway", "mail.gateway"])
@pytest.mark.parametrize("verdict", ["deny", "allow", "escalate"])
def test_a_verdict_in_a_package_that_nothing_imports_is_an_error(package: str, verdict: str, tmp_path: Path) -> None:
    text = f"package {package}\n\nhelper := 1\n{DENY.replace('deny', verdict)}"
    ((file, line, severity, said),) = loaded(tmp_path, {"crm/mail.rego": text})
    assert (file, line, severity) == ("crm/mail.rego", 5, "error")
    assert f"'{verdict}'" in said
    assert f"data.{package}.{verdict}" in said
    assert "`package gateway`" in said


@pytest.mark.parametrize(
    "rule", [f"deny := {RULE} if input.user", "default allow := false", "allow if input.user", "allow(x) if x == 1"]
)
def test_any_form_of_a_verdict_counts(rule: str, tmp_path: Path) -> None:
    assert [one[2] for one in loaded(tmp_path, {"x.rego": f"package crm\n{rule}\n"})] == ["error"]


def test_a_set_of_entries_under_another_name_counts(tmp_path: Path) -> None:
    files = {
        "x.rego": f"package crm\n{DENY.replace('deny', 'denials')}",
        "y.rego": f"package gateway\n{DENY.replace('deny', 'denny')}",
    }
    (other, own) = loaded(tmp_path, files)
    assert (other[0], other[2]) == ("x.rego", "error")
    assert (own[0], own[2]) == ("y.rego", "warning")
    assert "Did you mean 'deny'?" in own[3]


def test_helpers_are_exempt(tmp_path: Path) -> None:
    files = {
        "mail/ours.rego": "package mail.ours\n\naddresses := {`li@example.com`}\n\nours(x) if x in addresses\n",
        "unused.rego": "package spare\n\nhelper(x) := x + 1\n",
        "mail/mail.rego": f"package gateway\n\nimport data.mail.ours\n\ndeny contains {RULE} if ours.ours(input.user)\n",
    }
    assert loaded(tmp_path, files) == []


@pytest.mark.parametrize(
    "reading",
    [
        "deny contains entry if some entry in data.crm.deny\n",
        "import data.crm\n\ndeny contains entry if some entry in crm.deny\n",
        "import data.crm.deny as crm_deny\n\ndeny contains entry if some entry in crm_deny\n",
        "deny contains entry if some entry in data.crm[`deny`]\n",
        "deny contains entry if some entry in data.crm[_]\n",
        "deny contains entry if { some name; some entry in data[name].deny }\n",
        "deny contains entry if some entry in data.between.all\n",
    ],
)
def test_a_verdict_that_the_decision_reads_is_right_where_it_is(reading: str, tmp_path: Path) -> None:
    between = "package between\n\nall contains entry if some entry in data.crm.deny\n"
    files = {"crm.rego": f"package crm\n{DENY}", "between.rego": between, "read.rego": f"package gateway\n\n{reading}"}
    assert [one for one in loaded(tmp_path, files) if one[0] == "crm.rego"] == []


def test_a_verdict_that_only_something_unread_reads_is_an_error(tmp_path: Path) -> None:
    files = {
        "crm.rego": f"package crm\n\nours(x) if x == 1\n{DENY}",
        "other.rego": "package other\n\nall contains entry if some entry in data.crm.deny\n",
    }
    assert [(one[0], one[2]) for one in loaded(tmp_path, files)] == [("crm.rego", "error")]


@pytest.mark.parametrize("use", ["crm.ours(2)", "input.user"])
def test_a_verdict_beside_helpers_that_are_imported_is_a_warning(use: str, tmp_path: Path) -> None:
    files = {
        "crm.rego": f"package crm\n\nours(x) if x == 1\n{DENY}",
        "use.rego": f"package gateway\n\nimport data.crm\n\ndeny contains {RULE} if {use}\n",
    }
    assert [(one[0], one[2]) for one in loaded(tmp_path, files)] == [("crm.rego", "warning")]


def test_a_verdict_in_a_file_of_tests_is_told(tmp_path: Path) -> None:
    ((file, line, severity, said),) = loaded(tmp_path, {"mail_test.rego": f"package gateway\n{DENY}"})
    assert (file, line, severity) == ("mail_test.rego", 3, "warning")
    assert "not part of the policy" in said


def test_tests_are_exempt_and_do_not_count_as_readers(tmp_path: Path) -> None:
    mine = f"package crm_test\n\nimport data.crm\n{DENY}\ntest_deny if count(crm.deny) == 0 with input as {{}}\n"
    files = {"crm.rego": f"package crm\n{DENY}", "crm_test.rego": mine}
    assert [(one[0], one[2]) for one in loaded(tmp_path, files)] == [("crm.rego", "error")]


def test_a_verdict_that_an_own_entry_point_leaves_out_is_a_warning(tmp_path: Path) -> None:
    entry = (
        'package gateway\n\ndefault decision := {"effect": "deny", "rules": ["none"], "reasons": ["No."]}\n\n'
        'decision := {"effect": "allow", "rules": ["ok"], "reasons": ["Ok."]} if { count(allow) > 0; count(deny) == 0 }\n'
    )
    rules = "".join(DENY.replace("deny", verdict) for verdict in ("allow", "deny", "escalate"))
    engine, problems = load(folder(tmp_path, {"d.rego": entry, "r.rego": f"package gateway\n{rules}"}))
    assert engine is not None
    assert [(one.severity, one.line) for one in problems] == [("warning", 7)]
    assert "'escalate'" in problems[0].message


def test_tests_in_a_file_that_is_not_named_so_are_told(tmp_path: Path) -> None:
    text = (
        'package mail_test\n\nimport data.gateway.decision\n\ntest_x if decision.effect == "allow" with input as {}\n'
    )
    ((file, line, severity, said),) = loaded(tmp_path, {"mail_tests.rego": text})
    assert (file, line, severity) == ("mail_tests.rego", 5, "warning")
    assert "_test.rego" in said
    assert [one.name for one in run_tests(tmp_path)[0] if "mail" in one.name] == []


# ------------------------------------------------------------ shapes


@pytest.mark.parametrize(
    ("rule", "shape"),
    [
        ('deny if input.agent.id == "nobody"', "one value"),
        ("allow := true if input.user", "one value"),
        ("default deny := false", "a default"),
        (f'escalate["x"] := {RULE} if input.user', "one value"),
        ("deny(_) if input.user", "a function"),
    ],
)
def test_a_verdict_of_another_shape_than_a_set_is_an_error(rule: str, shape: str, tmp_path: Path) -> None:
    """OPA refuses the bundle, and the embedded engine fails when the rule applies."""
    found = loaded(tmp_path, {"x.rego": f"package gateway\n\n{rule}\n"})
    said = [text for file, line, severity, text in found if (file, line, severity) == ("x.rego", 3, "error")]
    assert any(shape in text and "contains" in text for text in said), found


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("x if input.user\nx contains 1", "'x' is a set here, and one value in x.rego:2"),
        ("x contains 1\nx.y := 2", "'x' is an object here, and a set in x.rego:2"),
        ("default x := 1\nx contains 2", "'x' is a set here, and one value in x.rego:2"),
        ("x(_) := 1\nx(_, _) := 2", "takes 2 arguments here, and 1 in x.rego:2"),
        ("x(_) := 1\nx := 2", "'x' is one value here, and a function in x.rego:2"),
        ("default x := 1\ndefault x := 2", "another default in x.rego:2"),
        ("default x(_, _) := 1\nx(y) := 2 if y", "takes 1 arguments here, and 2 in x.rego:2"),
    ],
)
def test_rules_of_one_name_that_opa_refuses_together_are_an_error(rules: str, message: str, tmp_path: Path) -> None:
    found = loaded(tmp_path, {"x.rego": f"package gateway\n{rules}\n"})
    assert any(one[:3] == ("x.rego", 3, "error") and message in one[3] for one in found), found


@pytest.mark.parametrize("rules", ['x["a"] := 1\nx.b contains 2', "x := 1 if input.user\nx := 2 if not input.user"])
def test_rules_of_one_name_that_go_together_are_none(rules: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, {"x.rego": f"package gateway\nimport future.keywords.not\n{rules}\n"}) == []
