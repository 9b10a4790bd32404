"""The dialect of Rego that policies here are written in: what both this engine and Open Policy Agent read alike.

Rego forgives too much for a gate. A misspelt path, an unknown function, a `not` around something missing: each is
merely undefined, and a deny rule silently does not fire. So a folder is read twice: here for what is not in the
dialect, module by module, and in `names` for names that lead nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gateway.policy import tree as trees
from gateway.policy.rego import RegoFault, parse


class Fault(NamedTuple):
    """Something to mend in a module."""

    line: int
    message: str
    mend: str


class Module(NamedTuple):
    """A module that parses: its name in the folder, text and syntax tree."""

    file: str
    text: str
    tree: dict[str, Any]

    @property
    def package(self) -> tuple[str, ...]:
        return trees.package(self.tree)

    @property
    def is_test(self) -> bool:
        return self.file.endswith("_test.rego")


_BRACES = "Write `if {` above the lines of a body and `}` below them."
_NOT = ("future", "keywords", "not")
_CLASSES = re.compile(r"\\[wWdDsSbB]")
_VERB = re.compile(r"%(?!v)")
_VERBS = re.compile(r"%v")
_FRACTION = re.compile(rb"[.eE]")


def read(file: str, text: str) -> tuple[Module | None, Fault | None]:
    """A module, or the syntax error that it has."""
    try:
        return Module(file, text, parse(file, text)), None
    except RegoFault as fault:
        if _outside_of(text, fault.line):
            message = "Does not parse: this line is outside of the rule above it, whose `if` has no braces."
            return None, Fault(fault.line, message, _BRACES)
        return None, Fault(fault.line or 1, f"Does not parse: {fault.message}.", _mend_of_syntax(text, fault))


def _outside_of(text: str, line: int) -> bool:
    """Whether a line looks like part of a body that was written without braces and so ended a line before."""
    lines = text.splitlines()
    if not 1 < line <= len(lines) or not lines[line - 1][:1].isspace():
        return False
    above = (one for one in reversed(lines[: line - 1]) if one.strip() and not one[:1].isspace() and one[0] != "#")
    head = next(above, "")
    return re.search(r"\bif\b[^{]*$", head.split(" #")[0]) is not None


def _mend_of_syntax(text: str, fault: RegoFault) -> str:
    lines = text.splitlines()
    line = lines[fault.line - 1].strip() if 0 < fault.line <= len(lines) else ""
    if line.startswith("import "):
        return "Put all imports at the top, below the package."
    if '$"' in line or "$`" in line:
        return "Template strings are not in the dialect: use sprintf."
    if re.search(r"\s(and|or)\s", line):
        return "`and` and `or` are not in the dialect: write one condition a line, or a second rule for `or`."
    if "`if`" in fault.message or "`contains`" in fault.message:
        return "Write Rego version 1: `rule if { ... }` and `set contains value if { ... }`."
    return "Correct the line; `opa fmt` and https://www.openpolicyagent.org/docs/policy-language help."


def check(module: Module) -> Iterator[Fault]:
    """What of one module is not in the dialect."""
    source = module.text.encode()
    meant = {path for _, path, _ in trees.imports(module.tree, source)}
    refused_nots = [] if _NOT in meant else [0]
    for tag, content in trees.walk(module.tree["rules"]):
        if tag == "NotExpr" and refused_nots:
            refused_nots.append(trees.line_of(content))
        elif tag == "Number":
            yield from _number(content, source)
        elif tag in ("String", "RawString"):
            yield from _string(content)
        elif tag == "Call":
            yield from _sprintf(content)
    if len(refused_nots) > 1:
        yield Fault(
            min(refused_nots[1:]),
            "`not` is used without its import, and then means something else in Open Policy Agent.",
            "Write `import future.keywords.not` below the package.",
        )
    yield from _imports(module, source)
    yield from _indented(module)


def _indented(module: Module) -> Iterator[Fault]:
    """Lines that were meant to be part of the body above: without braces they are rules of their own, and the rule
    above holds without them."""
    lines = module.text.splitlines()
    for head in trees.heads(module.tree):
        if lines[head.line - 1][:1].isspace() and _outside_of(module.text, head.line):
            yield Fault(head.line, "This line is outside of the rule above it, whose `if` has no braces.", _BRACES)


def _imports(module: Module, source: bytes) -> Iterator[Fault]:
    for _, path, line in trees.imports(module.tree, source):
        if path[:1] not in (("data",), ("input",), ("future",)) and path != ("rego", "v1"):
            yield Fault(line, f"The import {'.'.join(path)} is not known.", "Import from data or input.")


def _number(content: dict[str, Any], source: bytes) -> Iterator[Fault]:
    written = source[content["span"]["start"] : content["span"]["end"]]
    value = content["value"]
    if _FRACTION.search(written) or (isinstance(value, float) and not value.is_integer()):
        text = written.decode(errors="replace")
        yield Fault(
            trees.line_of(content),
            f"The number {text} is a fraction or has an exponent; engines disagree about those.",
            "Count in whole numbers of the smallest unit, such as cents.",
        )
    elif abs(value) > 2**53:
        yield Fault(trees.line_of(content), "The number is too large to be exact.", "Stay within 2^53.")


def _string(content: dict[str, Any]) -> Iterator[Fault]:
    found = _CLASSES.search(str(content["value"]))
    if found:
        yield Fault(
            trees.line_of(content),
            f"The class {found[0]} means other characters in other engines.",
            "Write the characters out, such as [0-9] or [A-Za-z0-9_].",
        )


def _sprintf(content: dict[str, Any]) -> Iterator[Fault]:
    if trees.reference(content["fcn"]) != ("sprintf",):
        return
    line, parameters = trees.line_of(content), content["params"]
    text = (parameters[0].get("String") or parameters[0].get("RawString")) if parameters else None
    if text is None:
        yield Fault(line, "sprintf needs its format written out.", "Put the format there as text.")
        return
    plain = str(text["value"]).replace("%%", "")
    if _VERB.search(plain):
        yield Fault(
            line, "sprintf takes no flags, widths or other verbs here: engines write them differently.", "Use %v."
        )
    elif len(parameters) == 2 and "Array" in parameters[1]:
        wanted, given = len(_VERBS.findall(plain)), len(parameters[1]["Array"]["items"])
        if wanted != given:
            yield Fault(line, f"sprintf names {wanted} values and gets {given}.", "Give one value for each verb.")
