"""From a folder to an engine that may be put in force, and the tests that lie in it.

A folder with one problem gives no engine: the caller keeps the old one, or does not start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.actions import (
    Action,
    Agent,
    Caller,
    Kind,
    ModelTarget,
    Session,
    Target,
    ToolTarget,
    Trace,
)
from gateway.documents import Problem
from gateway.policy import tree as trees
from gateway.policy.answer import POLICY_ERROR
from gateway.policy.dialect import Fault, Module, check
from gateway.policy.document import document
from gateway.policy.engine import ENTRY_POINT, EmbeddedEngine
from gateway.policy.folder import Bundle, read_folder
from gateway.policy.names import Names
from gateway.policy.rego import Machine, RegoFault

_PACKAGE = ("gateway",)
_RULE = "decision"
_DEFAULT = 'Write `default decision := {"effect": "deny", "rules": [..], "reasons": [..]}` in the package gateway.'


def load(path: str | Path) -> tuple[EmbeddedEngine | None, list[Problem]]:
    """An engine for the policies and data in a folder, or None and ALL that is wrong with them.

    The engine belongs to the calling thread. The tests in the folder are not run: see `test`.
    """
    bundle = read_folder(path)
    problems = [*bundle.problems, *_examine(bundle, bundle.modules)]
    if problems:
        return None, _sorted(problems)
    modules = {module.file: module.text for module in bundle.modules}
    faults: list[RegoFault] = []
    engine = None
    try:
        engine = EmbeddedEngine(modules, json.dumps(bundle.data), bundle.revision)
        faults = list(_probe(modules, bundle))
    except RegoFault as fault:
        faults.append(fault)
    problems = [_problem_of(bundle, fault) for fault in faults]
    if not problems and engine is not None:
        problems = list(_shapes(bundle, engine))
    return (None if problems else engine), _sorted(problems)


@dataclass(frozen=True, slots=True)
class Trial:
    """One rule of a `*_test.rego` file whose name starts with `test_`."""

    name: str  # data.gateway.rules_test.test_small_transfer
    file: str
    line: int
    passed: bool
    message: str = ""


def test(path: str | Path) -> tuple[list[Trial], list[Problem]]:
    """Run the tests of a folder. With problems in policies or tests, nothing is run."""
    bundle = read_folder(path)
    everything = [*bundle.modules, *bundle.tests]
    problems = [*bundle.problems, *_examine(bundle, everything)]
    try:
        machine = Machine({module.file: module.text for module in everything}, json.dumps(bundle.data))
    except RegoFault as fault:
        problems.append(_problem_of(bundle, fault))
        return [], _sorted(problems)
    if problems:
        return [], _sorted(problems)
    return [_try(machine, bundle, module, head) for module in bundle.tests for head in _test_rules(module)], []


def _test_rules(module: Module) -> Iterator[trees.Head]:
    return (head for head in trees.heads(module.tree) if head.name.startswith("test_"))


def _try(machine: Machine, bundle: Bundle, module: Module, head: trees.Head) -> Trial:
    name = ".".join(("data", *module.package, head.name))
    file = str(bundle.root / module.file)
    try:
        value = machine.ask(name, "{}")
    except RegoFault as fault:
        return Trial(name, file, head.line, False, f"{fault.place} {fault.message}".strip())
    return Trial(name, file, head.line, value is True, "" if value is True else "It is not true.")


# ---------------------------------------------------------------- what can be seen without running anything


def _examine(bundle: Bundle, modules: Sequence[Module]) -> list[Problem]:
    problems = [bundle.problem(module.file, *fault) for module in modules for fault in check(module)]
    unread = bundle.problems  # a file that is missing from the picture would make names lead nowhere
    if not unread:
        problems += [bundle.problem(file, *fault) for file, fault in Names(modules, bundle.data).check()]
        problems += [bundle.problem(file, *fault) for file, fault in _entry_point(modules)]
    for module in modules:
        seen: set[str] = set()
        for head in _test_rules(module) if module.is_test else ():
            if head.name in seen:
                problems.append(bundle.problem(module.file, head.line, f"{head.name} stands twice.", "Rename one."))
            seen.add(head.name)
    return problems


def _entry_point(modules: Sequence[Module]) -> Iterator[tuple[str, Fault]]:
    found = [
        (module.file, head)
        for module in modules
        if module.package == _PACKAGE
        for head in trees.heads(module.tree)
        if head.name == _RULE
    ]
    if not found:
        first = modules[0].file if modules else "decision.rego"
        yield first, Fault(0, f"No policy in the folder defines {ENTRY_POINT}.", _DEFAULT)
        return
    default = next(((file, head) for file, head in found if head.is_default), None)
    if default is None:
        file, head = found[0]
        yield file, Fault(head.line, f"{ENTRY_POINT} has no default.", _DEFAULT)
    elif not _is_deny(default[1]):
        yield default[0], Fault(default[1].line, f"The default of {ENTRY_POINT} is not a deny.", _DEFAULT)


def _is_deny(head: trees.Head) -> bool:
    fields = ((head.value or {}).get("Object") or {}).get("fields", [])
    return any(
        key.get("String", {}).get("value") == "effect" and value.get("String", {}).get("value") == "deny"
        for _, key, value in fields
    )


# ---------------------------------------------------------------- what only shows when it runs


def _probe(modules: dict[str, str], bundle: Bundle) -> Iterator[RegoFault]:
    """The engine compiles when it is first asked: unsafe variables, recursion and conflicts show here.

    Every rule is asked, also those that the samples would not reach through the entry point.
    """
    machine = Machine(modules, json.dumps(bundle.data))
    rules = {
        ".".join(("data", *module.package, *head.path)): None
        for module in bundle.modules
        for head in trees.heads(module.tree)
        if not head.function
    }
    seen: set[tuple[str, str]] = set()
    for sample in samples():
        for rule in (ENTRY_POINT, *rules):
            try:
                machine.ask_list(rule, sample.decode())
            except RegoFault as fault:
                if (fault.place, fault.message) not in seen:
                    seen.add((fault.place, fault.message))
                    yield fault


def _shapes(bundle: Bundle, engine: EmbeddedEngine) -> Iterator[Problem]:
    details: list[str] = []
    engine.on_fault = details.append
    wrong = any(POLICY_ERROR in engine.decide_now(sample).rules for sample in samples())
    engine.on_fault, engine.faults = None, 0
    if wrong:
        mend = "Answer {effect, rules, reasons, obligations, hidden}; see policies/gateway/decision.rego."
        yield Problem(str(bundle.root), 0, f"An answer is not a decision: {details[0]}.", mend)


def samples() -> Iterator[bytes]:
    """One plain input document for each kind of action that the gateway asks about."""
    tool = ToolTarget(server="sample", tool="read", server_kind="mcp", owner="nobody", risk="low", effect="read")
    client = ToolTarget(server="client", tool="Edit", server_kind="client", owner="", risk="high", effect="write")
    model = ModelTarget(alias="sample", provider="sample", model="sample")
    asked: tuple[tuple[Kind, Target], ...] = (
        (Kind.MODEL_INVOKE, model),
        (Kind.TOOL_CALL, tool),
        (Kind.TOOL_LIST, tool),
        (Kind.TOOL_PROPOSE, client),
    )
    for kind, target in asked:
        action = Action(
            id="00000000-0000-7000-8000-000000000000",
            kind=kind,
            door="check",
            caller=Caller(Agent(id="sample"), None, "sample", "key"),
            session=Session("sample", "minted"),
            trace=Trace("0" * 31 + "1", "0" * 15 + "1"),
            target=target.id,
            request_id="sample",
            received_ns=0,
        )
        yield document(action, target, environment="dev", undeclared="deny", limits={}, facts={}, now_ns=0)


def _problem_of(bundle: Bundle, fault: RegoFault) -> Problem:
    message = fault.message[:1].upper() + fault.message[1:] + "."
    mend = "Correct the rule; it would deny everything that reaches it."
    if fault.file is None:
        return Problem(str(bundle.root), 0, message, mend)
    return bundle.problem(fault.file, fault.line, message, mend)


def _sorted(problems: list[Problem]) -> list[Problem]:
    return sorted(set(problems), key=lambda problem: (problem.file, problem.line, problem.message))
