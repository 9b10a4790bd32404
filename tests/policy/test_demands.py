"""Entries of deny, escalate and allow, and what they demand: what is written out wrong is told at its line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.documents import errors
from gateway.policy import load
from gateway.policy.known import Known
from tests.policy.asking import POLICIES, folder

KNOWN = Known(tools={}, models=frozenset(), groups=frozenset({"treasury"}))
START = '"rule": "asks", "reason": "Four eyes."'


def loading(root: Path, text: str) -> tuple[bool, list[tuple[int, str, str]]]:
    """Whether the shipped policies load with this file, and what is said of it: line, severity, text."""
    shutil.copytree(POLICIES, root)
    engine, problems = load(folder(root, {"asks.rego": f"package gateway\n\n{text}\n"}))
    found = [*problems, *(engine.unknown_names(KNOWN) if engine else ())]
    told = [(one.line, one.severity, f"{one.message} {one.mend}") for one in found if one.file.endswith("asks.rego")]
    return engine is not None, told


def escalating(obligations: str) -> str:
    return f'escalate contains {{\n\t{START},\n\t"obligations": {obligations},\n}} if input.user'


# What stands in line 5 under "obligations", and what is said of it.
WRONG: dict[str, tuple[str, str]] = {
    "a quorom": ('[{"quorom": [{"approve": 2}]}]', "'quorum' inside `approval`"),
    "no approval": ('[{"quorum": [{"approve": 2}]}]', "inside `approval`"),
    "a misspelt approval": ('[{"aproval": {}}]', "Did you mean 'approval'?"),
    "what there is not": ('[{"redact": ["iban"]}]', "The only one is 'approval'"),
    "a second one": ('[{"approval": {}, "redact": ["iban"]}]', "'redact'"),
    "a quorom inside": ('[{"approval": {"quorom": [{"approve": 2}]}}]', "Did you mean 'quorum'?"),
    "an aprove": ('[{"approval": {"quorum": [{"aprove": 2}]}}]', "Did you mean 'approve'?"),
    "a quorum of 0": ('[{"approval": {"quorum": [{"approve": 0}]}}]', "'approve'"),
    "a negative quorum": ('[{"approval": {"quorum": [{"approve": -2}]}}]', "'approve'"),
    "a huge quorum": ('[{"approval": {"quorum": [{"approve": 21}]}}]', "'approve'"),
    "a quorum as text": ('[{"approval": {"quorum": [{"approve": "2"}]}}]', "Expected int, got str"),
    "a quorum that is none": ('[{"approval": {"quorum": []}}]', "is empty"),
    "a quorum that is no list": ('[{"approval": {"quorum": {"approve": 2}}}]', "must be a list"),
    "a quorum that is a number": ('[{"approval": {"quorum": 2}}]', "must be a list"),
    "a part that is a number": ('[{"approval": {"quorum": [2]}}]', "must be an object"),
    "a denial of 0": ('[{"approval": {"quorum": [{"deny": 0}]}}]', "'deny'"),
    "a group that is a number": ('[{"approval": {"quorum": [{"group": 5}]}}]', "'group'"),
    "no time": ('[{"approval": {"ttl_s": 0}}]', "'ttl_s'"),
    "negative time": ('[{"approval": {"ttl_s": -60}}]', "'ttl_s'"),
    "time as text": ('[{"approval": {"ttl_s": "4h"}}]', "'ttl_s'"),
    "too much time": ('[{"approval": {"ttl_s": 99999999}}]', "'ttl_s'"),
    "a misspelt time": ('[{"approval": {"ttl": 60}}]', "Did you mean 'ttl_s'?"),
    "when": ('[{"approval": {"execute_on": "vote"}}]', "decision, claim"),
    "an approval that is a list": ('[{"approval": []}]', "must be an object"),
    "an obligation that is a word": ('["approval"]', "must be an object"),
    "obligations that are an object": ('{"approval": {}}', "must be a list"),
    "obligations that are a word": ('"approval"', "must be a list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_obligation_that_is_written_wrong_is_an_error_at_its_line(name: str, tmp_path: Path) -> None:
    obligations, said = WRONG[name]
    loads, told = loading(tmp_path / "p", escalating(obligations))
    assert not loads
    assert [(line, severity) for line, severity, _ in told] == [(5, "error")]
    assert said in told[0][2]


def test_an_unknown_group_is_a_warning(tmp_path: Path) -> None:
    loads, told = loading(
        tmp_path / "p", escalating('[{"approval": {"quorum": [{"group": "tresury"}, {"group": "treasury"}]}}]')
    )
    assert loads
    assert [(line, severity) for line, severity, _ in told] == [(5, "warning")]
    assert "Did you mean 'treasury'?" in told[0][2]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f'escalate contains entry if {{\n\tentry := {{{START}, "obligations": [{{"quorom": []}}]}}\n}}', 4),
        (f'escalate contains {{{START}, "obligations": asks_two}} if input.user\n\nasks_two := [{{"quorom": 2}}]', 5),
        (f'escalate contains {{{START}, "obligations": [two]}} if {{\n\ttwo := {{"aproval": {{}}}}\n}}', 4),
        (f'escalate contains {{{START}, "obligations": [{{"approval": {{"ttl_s": s}}}}]}} if {{\n\ts := 0\n}}', 4),
        (f'otherwise_escalate contains {{{START}, "obligations": [{{"quorom": []}}]}} if input.user', 3),
    ],
)  # fmt: skip
def test_obligations_are_followed_to_where_they_are_written(text: str, line: int, tmp_path: Path) -> None:
    loads, told = loading(tmp_path / "p", text)
    assert not loads
    assert [(at, severity) for at, severity, _ in told] == [(line, "error")]


@pytest.mark.parametrize(
    ("entry", "severity", "said"),
    [
        ('deny contains {"rule": "a", "reson": "b"}', "error", "Did you mean 'reason'?"),
        ('deny contains {"rule": "a", "reason": "b", "hiden": true}', "error", "Did you mean 'hidden'?"),
        ('deny contains {"rule": "a", "reason": "b", "nota": "x"}', "error", "Did you mean 'note'?"),
        ('escalate contains {"rule": "a", "reason": "b", "obligation": []}', "error", "Did you mean 'obligations'?"),
        ('deny contains {"reason": "b"}', "error", "no 'rule'"),
        ('deny contains {"rule": "a", "note": "b"}', "error", "no 'reason'"),
        ('deny contains {"rule": "a", "reason": "b", "severity": 3}', "warning", "Nothing reads it"),
        ('deny contains "no"', "error", "must be an object"),
        ('deny contains {"rule": "", "reason": "b"}', "error", "'rule' must be a text"),
        ('deny contains {"rule": "a", "reason": 5}', "error", "'reason' must be a text"),
        ('deny contains {"rule": "a", "reason": "b", "hidden": "yes"}', "error", "true or false"),
        ('allow contains {"rule": "a", "reason": "b", "obligations": [{"approval": {}}]}', "error", "demands approval"),
        ('deny contains {"rule": "a", "reason": "b", "obligations": [{"approval": {}}]}', "warning", "no effect"),
        ('allow contains {"rule": "a", "reason": "b", "hidden": true}', "warning", "in deny only"),
    ],
)
def test_an_entry_that_is_written_wrong_is_told(entry: str, severity: str, said: str, tmp_path: Path) -> None:
    loads, told = loading(tmp_path / "p", f"{entry} if input.user")
    assert loads == (severity == "warning")
    assert [(one[0], one[1]) for one in told] == [(3, severity)]
    assert said in told[0][2]


def test_what_is_right_or_computed_is_left_alone(tmp_path: Path) -> None:
    text = (
        f'escalate contains {{{START}, "note": "n", "obligations": [{{"approval": {{'
        '"quorum": [{"approve": 2, "deny": 1, "group": "treasury"}], "ttl_s": 60, "execute_on": "claim"}}]} if input.user\n'
        'deny contains {"rule": "a", "reason": sprintf("%v", [input.user]), "hidden": input.target.declared} if input.user\n'
        f'escalate contains {{{START}, "obligations": [{{"approval": {{"ttl_s": input.now_ns}}}}]}} if input.user\n'
    )
    assert loading(tmp_path / "p", text) == (True, [])


def test_an_entry_point_that_reads_other_fields_has_entries_of_its_own(tmp_path: Path) -> None:
    entry = (
        'package gateway\n\ndefault decision := {"effect": "deny", "rules": ["none"], "reasons": ["No."]}\n\n'
        'decision := {"effect": "deny", "rules": ["r"], "reasons": [one.msg | some one in deny]} if count(deny) > 0\n\n'
        'deny contains {"msg": "Never."} if input.user\n'
    )
    engine, problems = load(folder(tmp_path, {"d.rego": entry}))
    assert engine is not None
    assert errors(problems) == []
