"""Runs the tests that lie beside the policies: rules `test_...` in files named *_test.rego."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.documents import Problem, errors
from gateway.policy import tree as trees
from gateway.policy.dialect import Module
from gateway.policy.examine import Examined, test_rules
from gateway.policy.folder import Bundle
from gateway.policy.loading import in_order, problem_of
from gateway.policy.rego import Machine, RegoFault
from gateway.policy.why import Failure, why

_MAX_EXPLAINED = 20  # failures whose values are looked for; each is evaluated again, line by line
_NOT_EXPLAINED = f"Values are shown for the first {_MAX_EXPLAINED} failures only; fix those, and run the tests again."


@dataclass(frozen=True, slots=True)
class Trial:
    """One rule of a `*_test.rego` file whose name starts with `test_`.

    Of a failure, `failed_line` is the line that did not hold, and where that compares two values, `expected` and
    `got` are these as JSON. `message` says all of it in words.
    """

    name: str  # data.gateway.rules_test.test_small_transfer
    file: str
    line: int
    passed: bool
    message: str = ""
    failed_line: int = 0
    expected: str | None = None
    got: str | None = None


def test(path: str | Path) -> tuple[list[Trial], list[Problem]]:
    """Run the tests of a folder, and all problems. With an error in policies or tests, nothing is run."""
    return run(Examined(path))


def run(examined: Examined) -> tuple[list[Trial], list[Problem]]:
    """As `test`, for a folder that was examined already."""
    bundle = examined.bundle
    problems = [*examined.problems, *examined.of_tests()]
    modules = {module.file: module.text for module in (*bundle.modules, *bundle.tests)}
    try:
        machine = Machine(modules, json.dumps(bundle.data))
    except RegoFault as fault:
        problems.append(problem_of(bundle, fault))
        return [], in_order(problems)
    if errors(problems):
        return [], in_order(problems)
    trials: list[Trial] = []
    failed = 0
    for module in bundle.tests:
        for head in test_rules(module):
            trial = _try(machine, bundle, module, head)
            if not trial.passed and (failed := failed + 1) <= _MAX_EXPLAINED:
                trial = _explained(trial, why(modules, bundle.data, module, head))
            elif not trial.passed:
                trial = replace(trial, message=f"{trial.message} {_NOT_EXPLAINED}")
            trials.append(trial)
    return trials, in_order(problems)


def failures(examined: Examined, *, is_error: bool) -> list[Problem]:
    """The tests of a folder that fail, and what keeps them from being run, as problems: errors or warnings.

    What is wrong with the policies themselves is left to `load`.
    """
    trials, problems = run(examined)
    of_tests = [one for one in errors(problems) if one.file.endswith("_test.rego")]
    found = [*of_tests, *(failed(one) for one in trials if not one.passed)]
    return found if is_error else [replace(one, severity="warning") for one in found]


def failed(trial: Trial) -> Problem:
    """A test that failed, as a problem of its file."""
    message = f"The test {trial.name} failed: {trial.message}"
    return Problem(trial.file, trial.failed_line or trial.line, message, "Fix the test or the policy.")


def _try(machine: Machine, bundle: Bundle, module: Module, head: trees.Head) -> Trial:
    name = ".".join(("data", *module.package, head.name))
    file = str(bundle.root / module.file)
    try:
        value: Any = machine.ask(name, "{}")
    except RegoFault as fault:
        return Trial(name, file, head.line, False, f"{fault.place} {fault.message}".strip())
    return Trial(name, file, head.line, value is True, "" if value is True else "It is not true.")


def _explained(trial: Trial, failure: Failure | None) -> Trial:
    if failure is None:
        return trial
    message = failure.message if trial.message == "It is not true." else f"{trial.message}; {failure.message}"
    return Trial(
        trial.name,
        trial.file,
        trial.line,
        passed=False,
        message=message,
        failed_line=failure.line,
        expected=failure.expected,
        got=failure.got,
    )
