"""Invariant 1: no policy, no matching rule, a policy error or an undefined result is a deny. Each tries to break it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.actions import Decision, Effect, Kind
from gateway.policy import POLICY_ERROR, EmbeddedEngine, load
from gateway.policy import rego as rego_module
from gateway.policy.reading import MAX_DOCUMENT_BYTES
from gateway.policy.rego import RegoFault, guarded
from tests.policy.asking import answer, asked, engine_of, folder, ledger, model, shipped

ALLOW = answer("allow")
DOCUMENT = asked(Kind.TOOL_CALL, ledger("transfer"), {"to": "acme-gmbh", "amount_cents": 1, "list": [], "one": [1]})

BROKEN = {
    "no such package": "package other\ndecision := " + ALLOW,
    "no such rule": "package gateway\nverdict := " + ALLOW,
    "undefined": "package gateway\ndecision := " + ALLOW + " if input.missing",
    "a conflict": f"package gateway\ndecision := {ALLOW}\ndecision := {answer('deny')}",
    "a conflict in a helper": f"package gateway\nh := 1 if true\nh := 2 if true\ndecision := {ALLOW} if h > 0",
    "a built-in error": "package gateway\ndecision := " + ALLOW + ' if to_number("x") > 0 else := ' + ALLOW,
    "division by zero": "package gateway\ndecision := " + ALLOW + " if 1 / count(input.action.arguments.list) > 0",
    "a wrong type": "package gateway\ndecision := " + ALLOW + ' if input.now_ns + "x" > 0',
    "a bad pattern": "package gateway\ndecision := " + ALLOW + ' if not regex.match("[", "x")',
    "a panic": "package gateway\ndecision := " + ALLOW + " if not object.subset(input.action.arguments.one, [])",
    "an unknown function": "package gateway\ndecision := " + ALLOW + " if not frobnicate(1)",
    "an unsafe variable": "package gateway\ndecision := " + ALLOW + " if not x",
    "a recursion": "package gateway\ndecision := a\na := b\nb := a",
    "a word": 'package gateway\ndecision := "allow"',
    "true": "package gateway\ndecision := true",
    "a set": "package gateway\ndecision contains " + ALLOW,
    "a list": f"package gateway\ndecision := [{ALLOW}]",
    "null": "package gateway\ndecision := null",
    "an empty object": "package gateway\ndecision := {}",
    "an unknown effect": "package gateway\ndecision := " + answer("Allow"),
    "an effect with a space": "package gateway\ndecision := " + answer("allow "),
    "effect true": 'package gateway\ndecision := {"effect": true, "rules": ["r"], "reasons": ["x"]}',
    "no rules": 'package gateway\ndecision := {"effect": "allow", "reasons": ["x"]}',
    "empty rules": 'package gateway\ndecision := {"effect": "allow", "rules": [], "reasons": ["x"]}',
    "rules as text": 'package gateway\ndecision := {"effect": "allow", "rules": "r", "reasons": ["x"]}',
    "an empty rule": 'package gateway\ndecision := {"effect": "allow", "rules": [""], "reasons": ["x"]}',
    "a rule that is a number": 'package gateway\ndecision := {"effect": "allow", "rules": [1], "reasons": ["x"]}',
    "no reasons": 'package gateway\ndecision := {"effect": "allow", "rules": ["r"]}',
    "an unknown field": 'package gateway\ndecision := {"effect": "allow", "rules": ["r"], "reasons": ["x"], "Hidden": 1}',
    "hidden as text": 'package gateway\ndecision := {"effect": "allow", "rules": ["r"], "reasons": ["x"], "hidden": "no"}',
    "an obligation that is text": (
        'package gateway\ndecision := {"effect": "allow", "rules": ["r"], "reasons": ["x"], "obligations": ["redact"]}'
    ),
    "a reason without end": (
        'package gateway\ndecision := {"effect": "allow", "rules": ["r"], "reasons": '
        '[concat("", [x | some _ in numbers.range(1, 5000); x := "ab"])]} if true'
    ),
}


def assert_policy_error(decision: Decision, document: bytes = DOCUMENT) -> None:
    assert decision.effect is Effect.DENY
    assert decision.rules == (POLICY_ERROR,)
    assert len(decision.reasons) == 1
    assert decision.input == document
    assert not decision.obligations


@pytest.mark.parametrize("name", BROKEN)
async def test_whatever_breaks_is_a_deny(name: str) -> None:
    told: list[str] = []
    engine = engine_of(BROKEN[name])
    engine.on_fault = told.append
    assert_policy_error(await engine.decide(DOCUMENT))
    assert_policy_error(await engine.decide(DOCUMENT))
    assert engine.faults == len(told) == 2
    assert "Traceback" not in "".join(told)
    assert "backtrace" not in "".join(told).lower()


@pytest.mark.parametrize(
    ("text", "bad", "good"),
    [
        (
            "object.subset(input.action.arguments.x, input.action.arguments.y)",
            {"x": [1], "y": []},
            {"x": [1], "y": [1]},
        ),
        ("to_number(input.action.arguments.x) > 0", {"x": "one"}, {"x": "1"}),
    ],
)
def test_after_a_fault_the_engine_decides_as_before(text: str, bad: dict[str, object], good: dict[str, object]) -> None:
    engine = engine_of(f"package gateway\ndefault decision := {answer('deny')}\ndecision := {ALLOW} if {text}")
    failing, passing = (asked(Kind.TOOL_CALL, ledger("transfer"), arguments) for arguments in (bad, good))
    assert engine.decide_now(passing).effect is Effect.ALLOW
    assert_policy_error(engine.decide_now(failing), failing)
    assert engine.decide_now(passing).effect is Effect.ALLOW
    assert engine.faults == 1


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"\xff\xfe", b'{"v": "\xff"}', b"null x", b'{"a": 1e999}', b'{"a": "\\ud800"}', b"[" * 5000],
    ids=["empty", "half", "not UTF-8", "not UTF-8 inside", "two values", "too large", "surrogate", "deep"],
)
def test_a_document_that_cannot_be_read_is_a_deny(document: bytes) -> None:
    engine = shipped()
    assert_policy_error(engine.decide_now(document), document)
    assert engine.decide_now(asked(Kind.MODEL_INVOKE, model())).effect is Effect.ALLOW


@pytest.mark.parametrize("document", [b"{}", b"null", b"[]", b"true", b'"x"', b"7"])
def test_a_document_that_says_nothing_is_a_deny(document: bytes) -> None:
    assert shipped().decide_now(document).effect is Effect.DENY


def test_a_document_too_large_to_read_on_the_event_loop_is_a_deny() -> None:
    engine = engine_of("package gateway\ndecision := " + ALLOW)
    fitting = b'{"a": "' + b"x" * (MAX_DOCUMENT_BYTES - 9) + b'"}'
    assert engine.decide_now(fitting).effect is Effect.ALLOW
    large = fitting[:-2] + b'x"}'
    decision = engine.decide_now(large)
    assert_policy_error(decision, large)
    assert "larger" in decision.reasons[0]


def test_an_engine_asked_from_another_thread_denies_and_goes_on() -> None:
    engine = engine_of("package gateway\ndecision := " + ALLOW)
    decisions: list[Decision] = []
    thread = threading.Thread(target=lambda: decisions.append(engine.decide_now(DOCUMENT)))
    thread.start()
    thread.join()
    assert_policy_error(decisions[0])
    assert engine.decide_now(DOCUMENT).effect is Effect.ALLOW


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_what_ends_the_program_is_not_a_fault_of_a_policy(kind: type[BaseException]) -> None:
    def ends() -> None:
        raise kind

    with pytest.raises(kind):
        guarded(ends)


def test_every_other_exception_becomes_a_fault() -> None:
    class Panic(BaseException):
        pass

    for kind in (RuntimeError, TypeError, MemoryError, RecursionError, Panic):

        def fails(kind: type[BaseException] = kind) -> None:
            raise kind("window size must be non-zero\n\nStack backtrace:\n 0: <unknown>")

        with pytest.raises(RegoFault) as caught:
            guarded(fails)
        assert "backtrace" not in caught.value.message


def test_people_read_where_a_policy_failed_and_agents_do_not() -> None:
    engine = engine_of("package gateway\n\ndecision := 1 + input.action.arguments.to")
    decision = engine.decide_now(DOCUMENT)
    assert "broken.rego:3" in decision.notes[0]
    assert "broken.rego" not in decision.reasons[0]
    assert "acme" not in decision.reasons[0] + decision.notes[0]


@pytest.mark.parametrize("files", [{}, {"readme.md": "hello"}, {"data.yaml": "a: 1"}, {"x_test.rego": "package t"}])
def test_no_policies_give_no_engine(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    engine, problems = load(folder(tmp_path, files))
    assert engine is None
    assert problems


def test_no_folder_gives_no_engine(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", folder(tmp_path, {"file": "x"}) / "file"):
        engine, problems = load(path)
        assert engine is None
        assert "no such folder" in problems[0].message


def test_hidden_means_something_only_on_a_deny() -> None:
    hidden = '{"effect": "%s", "rules": ["r"], "reasons": ["x"], "hidden": true}'
    allowed: EmbeddedEngine = engine_of("package gateway\ndecision := " + hidden % "allow")
    denied = engine_of("package gateway\ndecision := " + hidden % "deny")
    assert not allowed.decide_now(DOCUMENT).hidden
    assert denied.decide_now(DOCUMENT).hidden


def demanding(effect: str, obligation: str) -> Decision:
    """The decision of a policy that demands this, made while it runs so that nothing of it is seen before."""
    text = f'package gateway\ndecision := {{"effect": "{effect}", "rules": ["r"], "reasons": ["x"], '
    return engine_of(f'{text}"obligations": [{obligation} | true]}}').decide_now(DOCUMENT)


def test_obligations_come_through_as_they_are() -> None:
    decision = demanding("escalate", '{"approval": {"quorum": [{"approve": 2, "group": "treasury"}], "ttl_s": 60}}')
    assert decision.effect is Effect.ESCALATE
    assert decision.obligations[0]["approval"]["quorum"] == [{"approve": 2, "group": "treasury"}]


@pytest.mark.parametrize(
    ("effect", "obligation"),
    [
        ("escalate", '{"quorom": [{"approve": 2}]}'),
        ("escalate", '{"quorum": [{"approve": 2}], "ttl_s": 60}'),
        ("escalate", '{"aproval": {"quorum": [{"approve": 2}]}}'),
        ("escalate", '{"approval": {"quorom": [{"approve": 2}]}}'),
        ("escalate", '{"approval": {"quorum": [{"approve": 0}]}}'),
        ("escalate", '{"approval": {"quorum": [{"approve": -1}]}}'),
        ("escalate", '{"approval": {"quorum": [{"approve": "2"}]}}'),
        ("escalate", '{"approval": {"quorum": []}}'),
        ("escalate", '{"approval": {"ttl_s": 0}}'),
        ("escalate", '{"approval": {}, "redact": ["iban"]}'),
        ("escalate", "{}"),
        ("allow", '{"redact": ["iban"]}'),
        ("allow", '{"approval": {"quorum": [{"approve": 2}]}}'),
    ],
)
def test_an_obligation_that_cannot_be_followed_is_a_deny(effect: str, obligation: str) -> None:
    decision = demanding(effect, obligation)
    assert (decision.effect, decision.rules) == (Effect.DENY, ("r", "obligation_unreadable"))
    assert decision.notes
    assert not decision.obligations
    assert "quor" not in decision.reasons[0]


def test_what_a_deny_demands_does_not_matter() -> None:
    assert demanding("deny", '{"redact": ["iban"]}').rules == ("r",)


def test_the_compiled_machine_is_never_used() -> None:
    source = Path(rego_module.__file__).read_text()
    assert "regorus.Rvm" not in source
    assert "regorus.Program" not in source
