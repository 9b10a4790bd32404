"""From a folder to an engine that may decide.

A folder with one error gives no engine: the caller keeps the old one, or does not start. Warnings keep nothing back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
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
from gateway.documents import Problem, errors
from gateway.obligations import UNREADABLE_RULE
from gateway.policy import tree as trees
from gateway.policy.answer import POLICY_ERROR
from gateway.policy.document import document
from gateway.policy.engine import ENTRY_POINT, EmbeddedEngine
from gateway.policy.examine import Examined
from gateway.policy.folder import Bundle
from gateway.policy.rego import RegoFault


def load(path: str | Path) -> tuple[EmbeddedEngine | None, list[Problem]]:
    """An engine for the policies and data in a folder, or None and ALL that is wrong with them.

    The engine belongs to the calling thread. The tests in the folder are not run: see `trials.test`.
    """
    return build(Examined(path))


def build(examined: Examined) -> tuple[EmbeddedEngine | None, list[Problem]]:
    """As `load`, for a folder that was examined already (which may be done in any thread)."""
    bundle, found = examined.bundle, examined.problems
    if errors(found):
        return None, in_order(found)
    modules = {module.file: module.text for module in bundle.modules}
    faults: list[RegoFault] = []
    engine = None
    try:
        engine = EmbeddedEngine(modules, json.dumps(bundle.data), bundle.revision, unknown_names=examined.unknown_names)
        faults = list(_probe(engine, bundle))
    except RegoFault as fault:
        faults.append(fault)
    problems = [problem_of(bundle, fault) for fault in faults]
    if not problems and engine is not None:
        problems = list(_shapes(bundle, engine))
    return (None if problems else engine), in_order([*problems, *found])


# ---------------------------------------------------------------- what only shows when it runs


def _probe(engine: EmbeddedEngine, bundle: Bundle) -> Iterator[RegoFault]:
    """The engine compiles when it is first asked: unsafe variables, recursion and conflicts show here.

    Every rule is asked, also those that the samples would not reach through the entry point.
    """
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
                engine.probe(rule, sample)
            except RegoFault as fault:
                if (fault.place, fault.message) not in seen:
                    seen.add((fault.place, fault.message))
                    yield fault


def _shapes(bundle: Bundle, engine: EmbeddedEngine) -> Iterator[Problem]:
    details: list[str] = []
    engine.on_fault = details.append
    wrong = any(engine.decide_now(sample).rules[-1] in (POLICY_ERROR, UNREADABLE_RULE) for sample in samples())
    engine.on_fault, engine.faults = None, 0
    if wrong and details:
        mend = "Answer {effect, rules, reasons, notes, obligations, hidden}; see policies/gateway/decision.rego."
        yield Problem(str(bundle.root), 0, f"An answer is not a decision: {details[0].rstrip('.')}.", mend)


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


def problem_of(bundle: Bundle, fault: RegoFault) -> Problem:
    """A fault of the engine as a problem of the folder."""
    message = fault.message[:1].upper() + fault.message[1:] + "."
    mend = "Correct the rule; it would deny everything that reaches it."
    if fault.file is None:
        return Problem(str(bundle.root), 0, message, mend)
    return bundle.problem(fault.file, fault.line, message, mend)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Each problem once, by place."""
    return sorted(set(problems), key=lambda problem: (problem.file, problem.line, problem.message))
