"""Folders: revision, data and where they stand, files that count; explanations; swapping an engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.actions import Action, Effect, Kind, Target
from gateway.clock import ManualClock
from gateway.policy import Decider, load
from tests.policy.asking import POLICIES, action, answer, asked, engine_of, folder, ledger, model, shipped

ENTRY = f"package gateway\n\ndefault decision := {answer('deny')}\n"
DOCUMENT = asked(Kind.MODEL_INVOKE, model())


def revision(root: Path) -> str:
    engine, problems = load(root)
    assert engine is not None, [str(one) for one in problems]
    return engine.revision


def test_the_revision_names_policies_and_data_and_nothing_else(tmp_path: Path) -> None:
    first = revision(folder(tmp_path, {"d.rego": ENTRY, "data.yaml": "a: 1"}))
    assert len(first) == 64
    unrelated: dict[str, str | bytes] = {
        "readme.md": "x",
        "d_test.rego": "package t",
        ".hidden/x.rego": "{",
        "x.json": "{",
    }
    assert revision(folder(tmp_path, unrelated)) == first
    assert revision(folder(tmp_path, {"data.yaml": "a: 2"})) != first
    assert revision(folder(tmp_path, {"data.yaml": "a: 1"})) == first
    assert revision(folder(tmp_path, {"d.rego": ENTRY + "\n"})) != first
    assert revision(folder(tmp_path, {"d.rego": ENTRY, "e.rego": "package e"})) != first


def test_the_revision_knows_a_file_by_its_name(tmp_path: Path) -> None:
    one = revision(folder(tmp_path / "one", {"d.rego": ENTRY, "a/data.yaml": "x: 1"}))
    two = revision(folder(tmp_path / "two", {"d.rego": ENTRY, "b/data.yaml": "x: 1"}))
    assert one != two


def test_the_folder_says_where_data_stand(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "d.rego": ENTRY + 'decision := {"effect": "allow", "rules": [data.a.b.x], "reasons": [data.a.y, data.z]}\n',
        "a/b/data.json": json.dumps({"x": "deep"}),
        "a/data.yaml": "y: 'no'",
        "data.yaml": "z: no\nempty: {}\na: {b: {more: 1}}",
    }
    engine, problems = load(folder(tmp_path, files))
    assert [str(one) for one in problems] == []
    assert engine is not None
    decision = engine.decide_now(DOCUMENT)
    assert (decision.rules, decision.reasons) == (("deep",), ("no", "no"))


@pytest.mark.parametrize(
    ("files", "file", "line", "word"),
    [
        ({"data.yaml": "a: 1\nb: 0.5\n"}, "data.yaml", 2, "fraction"),
        ({"data.yaml": ""}, "data.yaml", 1, "Write `{}`"),
        ({"data.yaml": "# nothing\n"}, "data.yaml", 1, "Write `{}`"),
        ({"data.yaml": "[a]"}, "data.yaml", 1, "not a mapping. Write names"),
        ({"data.yaml": "a:\n  - 1\n  - 9007199254740993\n"}, "data.yaml", 3, "too large"),
        ({"data.yaml": "a: 1\na: 2\n"}, "data.yaml", 2, "twice"),
        ({"data.yaml": "- a\n"}, "data.yaml", 1, "mapping"),
        ({"data.yaml": "a: [1\n"}, "data.yaml", 2, "YAML"),
        ({"data.yaml": b"a: \xff"}, "data.yaml", 1, "UTF-8"),
        ({"data.json": '{"a": 1, "a": 2}'}, "data.json", 1, "twice"),
        ({"data.json": "[1]"}, "data.json", 1, "object"),
        ({"data.json": '{"a":\n NaN}'}, "data.json", 1, "fraction"),
        ({"data.json": '{"a": 0.5}'}, "data.json", 1, "fraction"),
        ({"data.json": "\xff".encode("latin-1")}, "data.json", 1, "UTF-8"),
        ({"data.json": "[" * 100_000}, "data.json", 1, "deep"),
        ({"data.json": '{"a": ' + "9" * 5000 + "}"}, "data.json", 1, "number"),
        ({"data.yaml": "x: {y: 1}", "x/data.yaml": "y: 2"}, "x/data.yaml", 1, "another"),
        ({"data.yaml": "x: 1", "x/data.yaml": "y: 2"}, "x/data.yaml", 1, "already"),
        ({"x/data.yaml": "y: 1", "x/data.json": '{"y": 2}'}, "x/data.yaml", 1, "another"),
    ],
)
def test_data_that_cannot_stand_are_told(
    tmp_path: Path, files: dict[str, str | bytes], file: str, line: int, word: str
) -> None:
    engine, problems = load(folder(tmp_path, {"d.rego": ENTRY, **files}))
    assert engine is None
    assert [(Path(one.file).relative_to(tmp_path).as_posix(), one.line) for one in problems] == [(file, line)]
    assert word in f"{problems[0].message} {problems[0].mend}"
    assert problems[0].mend


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    folder(tmp_path, {"d.rego": ENTRY, "big.rego": "#" * (1024 * 1024 + 1)})
    (tmp_path / "dangling.rego").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.rego").mkdir()
    engine, problems = load(tmp_path)
    assert engine is None
    assert [Path(one.file).name for one in problems] == ["big.rego", "dangling.rego"]


def test_a_bad_folder_leaves_the_old_engine_as_it_was(tmp_path: Path) -> None:
    old, _ = load(folder(tmp_path, {"d.rego": ENTRY + f"decision := {answer('allow')} if input.user\n"}))
    assert old is not None
    new, problems = load(folder(tmp_path, {"d.rego": "package gateway\ndecision := {{"}))
    assert new is None
    assert problems
    assert old.decide_now(DOCUMENT).effect is Effect.ALLOW


def test_data_size_does_not_change_decisions(tmp_path: Path) -> None:
    for path in POLICIES.rglob("*"):
        if path.suffix in (".rego", ".yaml"):
            folder(tmp_path, {path.relative_to(POLICIES).as_posix(): path.read_bytes()})
    many = {"agents": {f"a{number}": {"models": ["demo"]} for number in range(2_000)}}
    engine, problems = load(folder(tmp_path, {"grants/data.json": json.dumps(many)}))
    assert [str(one) for one in problems] == []
    assert engine is not None
    assert engine.decide_now(DOCUMENT).effect is Effect.ALLOW


def test_an_explanation_names_all_that_fired_and_where() -> None:
    engine = shipped()
    raw = asked(Kind.TOOL_CALL, ledger("transfer"), {"to": "mallory", "amount_cents": 0})
    explained = engine.explain(raw)
    assert explained.decision == engine.decide_now(raw)
    assert [entry["rule"] for entry in explained.matched["deny"]] == [
        "ledger_amount_invalid",
        "ledger_payee_not_listed",
    ]
    assert [entry["rule"] for entry in explained.matched["escalate"]] == ["effect_needs_approval"]
    assert explained.matched["allow"] == []
    assert "ledger/ledger.rego" in explained.lines
    assert explained.fault is None


def test_an_explanation_of_a_fault_says_what_broke() -> None:
    told: list[str] = []
    engine = engine_of('package gateway\ndecision := to_number("x")')
    engine.on_fault = told.append
    explained = engine.explain(DOCUMENT)
    assert explained.decision.rules == ("policy_error",)
    assert "broken.rego:2" in str(explained.fault)
    assert told == []
    assert engine.faults == 0


def test_an_explanation_of_rubbish_is_a_deny() -> None:
    assert shipped().explain(b"\xff").decision.rules == ("policy_error",)


async def test_a_swap_changes_the_engine_and_the_setting_between_decisions() -> None:
    limits: list[tuple[str, str | None, str]] = []

    def left(asked: Action, target: Target) -> dict[str, object]:
        limits.append((asked.caller.agent.id, asked.caller.user, target.id))
        return {"agent:demo-agent": {"left": 3}}

    clock = ManualClock(now_ns=5)
    decider = Decider(
        shipped(),
        environment="dev",
        undeclared="deny",
        clock=clock,
        limits=left,
        facts=lambda session: {"seen": session},
    )
    first = await decider.decide(action(Kind.MODEL_INVOKE, model()), model())
    seen = json.loads(first.input)
    assert first.effect is Effect.ALLOW
    assert (seen["now_ns"], seen["limits"], seen["session"]["facts"]) == (
        5,
        {"agent:demo-agent": {"left": 3}},
        {"seen": "s-1"},
    )
    assert limits == [("demo-agent", "ada", model().id)]
    decider.swap(engine_of(ENTRY), undeclared="observe")
    second = await decider.decide(action(Kind.MODEL_INVOKE, model()), model())
    assert second.effect is Effect.DENY
    assert (second.revision, decider.revision) == ("r", "r")
    assert json.loads(second.input)["settings"] == {"undeclared_client_tools": "observe"}
