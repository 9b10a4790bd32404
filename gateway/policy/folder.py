"""A folder of policies on disk: which files count, where their data stand, and what the whole is named.

`*.rego` are policies (`*_test.rego` their tests); `data.yaml` and `data.json` are data, and the folder they lie in
decides where: `ledger/data.yaml` is `data.ledger`. Everything else is left alone, as is what begins with a dot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gateway import documents
from gateway.documents import Problem
from gateway.policy.dialect import Module, read

MAX_REGO_BYTES = 1024 * 1024
MAX_JSON_BYTES = 16 * 1024 * 1024
_EXACT = 2**53


class Bundle(NamedTuple):
    """What a folder holds, as far as it could be read, and what is wrong with the rest."""

    root: Path
    modules: list[Module]
    tests: list[Module]
    data: dict[str, Any]
    revision: str
    problems: list[Problem]

    def problem(self, file: str, line: int, message: str, mend: str) -> Problem:
        """A problem of a file of this folder."""
        return Problem(str(self.root / file), line, message, mend)


def read_folder(root: str | Path) -> Bundle:
    """Everything in the folder. Raises nothing: what cannot be read is a problem."""
    root = Path(root)
    bundle = Bundle(root, [], [], {}, "", [])
    if not root.is_dir():
        bundle.problems.append(Problem(str(root), 0, "There is no such folder of policies.", "Check `policy.path`."))
        return bundle
    digest = hashlib.sha256()
    for path in sorted(_files(root), key=lambda path: path.relative_to(root).as_posix()):
        file = path.relative_to(root).as_posix()
        raw = _bytes(path, bundle)
        if raw is None:
            continue
        if not file.endswith("_test.rego"):
            for part in (file.encode(), raw):
                digest.update(len(part).to_bytes(8, "big") + part)
        if path.suffix == ".rego":
            _module(file, raw, bundle)
        else:
            _data(file, raw, bundle)
    if not bundle.modules and not bundle.problems:
        bundle.problems.append(Problem(str(root), 0, "The folder holds no policy.", "Put *.rego files there."))
    return bundle._replace(revision=digest.hexdigest())


def _files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        wanted = path.suffix == ".rego" or path.name in ("data.yaml", "data.yml", "data.json")
        if wanted and not hidden and (path.is_symlink() or path.is_file()):
            yield path


def _bytes(path: Path, bundle: Bundle) -> bytes | None:
    limit = MAX_JSON_BYTES if path.suffix == ".json" else MAX_REGO_BYTES
    try:
        with path.open("rb") as stream:
            raw = stream.read(limit + 1)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        bundle.problems.append(Problem(str(path), 0, f"Cannot be read: {reason}.", "Check its permissions."))
        return None
    if len(raw) > limit:
        bundle.problems.append(Problem(str(path), 0, f"Larger than {limit} bytes.", "Split it."))
        return None
    return raw


def _module(file: str, raw: bytes, bundle: Bundle) -> None:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        bundle.problems.append(bundle.problem(file, line, "Not UTF-8.", "Save the file as UTF-8."))
        return
    module, fault = read(file, text)
    if fault is not None:
        bundle.problems.append(bundle.problem(file, *fault))
    elif module is not None:
        (bundle.tests if module.is_test else bundle.modules).append(module)


def _data(file: str, raw: bytes, bundle: Bundle) -> None:
    if file.endswith(".json"):
        value, lines = _json(file, raw, bundle), None
    else:
        if not raw.strip():
            return
        lines, problems = documents.parse(raw, str(bundle.root / file))
        bundle.problems.extend(problems)
        value = lines.data if lines else None
    if not isinstance(value, dict):
        return
    for path, message, mend in _inexact(value, ()):
        bundle.problems.append(bundle.problem(file, lines.line(*path) if lines else 1, message, mend))
    here = bundle.data
    for step in file.split("/")[:-1]:
        here = here.setdefault(step, {})
        if not isinstance(here, dict):
            message = f"Data stand at {step!r} already, from a file above."
            bundle.problems.append(bundle.problem(file, 1, message, "Keep one of them."))
            return
    for path in _merge(here, value, ()):
        message = f"{'.'.join(path)} is given by another data file too."
        bundle.problems.append(bundle.problem(file, lines.line(*path) if lines else 1, message, "Keep one of them."))


def _json(file: str, raw: bytes, bundle: Bundle) -> Any:
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                twice.append(key)
            found[key] = value
        return found

    try:
        value = json.loads(raw.decode(), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        bundle.problems.append(bundle.problem(file, error.lineno, f"Not JSON: {error.msg}.", "Correct the line."))
        return None
    except (ValueError, RecursionError) as error:
        told = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "nested too deep or a number too long"
        bundle.problems.append(bundle.problem(file, 1, f"Not JSON that can be read: {told}.", "Correct the file."))
        return None
    for key in twice:
        bundle.problems.append(bundle.problem(file, 1, f"The key {key!r} stands twice.", "Keep one of them."))
    if not isinstance(value, dict):
        bundle.problems.append(bundle.problem(file, 1, "The file is not an object.", "Start with `{`."))
    return value


def _inexact(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Numbers that engines do not read alike."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _inexact(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _inexact(inner, (*path, index))
    elif isinstance(value, float) or (isinstance(value, int) and abs(value) > _EXACT):
        name = ".".join(str(step) for step in path)
        mend = "Count in whole numbers of the smallest unit, such as cents, or put it in quotes."
        yield path, f"{name} is a fraction or too large to be exact.", mend


def _merge(into: dict[str, Any], value: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Add `value`; yields the paths that were taken."""
    for key, inner in value.items():
        if key not in into:
            into[key] = inner
        elif isinstance(into[key], dict) and isinstance(inner, dict):
            yield from _merge(into[key], inner, (*path, key))
        else:
            yield (*path, key)
