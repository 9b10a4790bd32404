"""The only place that touches the Rego library (regorus, a Rust crate), and what makes it safe to hold.

Its faults come as RuntimeError with a stack trace in the text, or as a panic, which is a BaseException and leaves
the engine unusable: both leave here as `RegoFault`, and a `Machine` that failed goes on with a fresh copy of itself.
Only its strict `Engine` is used. Its compiled machine (`Rvm`) turns built-in errors into undefined, and a deny rule
then silently does not fire. An engine belongs to the thread that made it; from another it panics.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import regorus

P = ParamSpec("P")
T = TypeVar("T")

# What ends the program or the task is not a fault of a policy.
_NOT_OURS = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)

_BACKTRACE = "\n\nStack backtrace:"  # appended where RUST_BACKTRACE is set
_PLACE = re.compile(r"-->\s(?P<file>.+):(?P<line>\d+):(?P<column>\d+)\s*$", re.MULTILINE)
_ERROR = re.compile(r"^error: (?P<message>.+)", re.MULTILINE)


class RegoFault(Exception):  # noqa: N818 - "fault" is the word of this room
    """Something that the library could not do: `message` for a policy's author, and where, if it is known."""

    def __init__(self, message: str, file: str | None = None, line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line

    @property
    def place(self) -> str:
        """`file:line`, or nothing."""
        return f"{self.file}:{self.line}" if self.file else ""


def guarded(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call into the library. Raises RegoFault for whatever goes wrong in there, panics included."""
    try:
        return function(*args, **kwargs)
    except _NOT_OURS:
        raise
    except BaseException as error:  # noqa: BLE001 - a panic is one; nothing is swallowed, all becomes RegoFault
        raise _fault(error) from None


def _fault(error: BaseException) -> RegoFault:
    text = str(error).split(_BACKTRACE, 1)[0]
    if not isinstance(error, Exception):
        return RegoFault(f"the engine panicked: {text.splitlines()[0] if text else 'no message'}")
    place, message = _PLACE.search(text), _ERROR.search(text)
    words = message["message"] if message else " ".join(text.split()) or type(error).__name__
    if place is None:
        return RegoFault(words)
    return RegoFault(words, place["file"], int(place["line"]))


def parse(file: str, text: str) -> dict[str, Any]:
    """The syntax tree of one module. Raises RegoFault with the line of a syntax error."""
    engine = guarded(regorus.Engine)
    guarded(engine.add_policy, file, text)
    tree: dict[str, Any] = json.loads(guarded(engine.get_ast_as_json))[0]["ast"]
    return tree


class Machine:
    """Modules and data, ready to be asked. Belongs to the thread that made it."""

    def __init__(self, modules: Mapping[str, str], data_json: str, *, coverage: bool = False) -> None:
        self._thread = threading.get_ident()
        self._pristine: Any = guarded(regorus.Engine)
        guarded(self._pristine.set_gather_prints, True)  # a stray print must not reach stderr
        for file, text in modules.items():
            guarded(self._pristine.add_policy, file, text)
        guarded(self._pristine.add_data_json, data_json)
        guarded(self._pristine.set_enable_coverage, coverage)
        self._engine: Any = guarded(self._pristine.clone)

    def ask(self, rule: str, document: str) -> Any:
        """The value of `rule` for an input document, None where it is undefined. Raises RegoFault.

        A rule's path that does not exist is a fault, and so is a set of objects (Python has none): see `ask_list`.
        """
        return self._ask("eval_rule", rule, document)

    def ask_json(self, rule: str, document: str) -> str:
        """The value of `rule` as JSON, sets as sorted arrays; not JSON of any use where it is undefined. Raises
        RegoFault. As fast as `ask`."""
        value: str = self._ask("eval_rule_as_json", rule, document)
        return value

    def ask_list(self, rule: str, document: str) -> list[Any]:
        """The members of the set or array `rule`; none where it is undefined. Raises RegoFault. Slower."""
        value = json.loads(self.ask_json(rule, document))
        return value if isinstance(value, list) else []

    def _ask(self, how: str, rule: str, document: str) -> Any:
        if threading.get_ident() != self._thread:
            raise RegoFault("the engine was asked from a thread that did not make it")
        try:
            guarded(self._engine.set_input_json, document)
            return guarded(getattr(self._engine, how), rule)
        except RegoFault:
            # After a panic every further evaluation fails ("recursion detected"); a copy costs microseconds.
            self._engine = guarded(self._pristine.clone)
            raise

    def covered(self) -> dict[str, list[int]]:
        """File to the lines that were reached, of a machine made with coverage."""
        report = json.loads(guarded(self._engine.get_coverage_report_as_json))
        return {one["path"]: sorted(one["covered"]) for one in report["files"] if one["covered"]}

    def forget_coverage(self) -> None:
        """Begin a new coverage report."""
        guarded(self._engine.clear_coverage_data)
