"""Reads the data files of a folder of policies and merges them into the one document under `data`.

Refused is what two engines would not read alike: fractions, large integers, a key or a path that is given twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway import documents
from gateway.policy.dialect import Fault
from gateway.policy.places import DataFile, DataFiles, Path

_EXACT = 2**53


def add_data(file: str, raw: bytes, *, into: dict[str, Any], files: DataFiles) -> Iterator[Fault]:
    """Read one file, named relative to the folder, and add what it holds; what is wrong with it."""
    prefix = tuple(file.split("/")[:-1])
    if file.endswith(".json"):
        value, faults = _json(raw)
        read = DataFile(file, prefix, text=raw.decode(errors="replace"))
    else:
        document, problems = documents.parse(raw, file, is_versioned=False)
        faults = [Fault(one.line, one.message, one.mend) for one in problems]
        value = None if document is None else document.data
        read = DataFile(file, prefix, document)
    yield from faults
    if not isinstance(value, dict):
        return
    for path, message, mend in _inexact(value, ()):
        yield Fault(read.find((*prefix, *path))[1], message, mend)
    files.add(read)
    here = into
    for step in prefix:
        here = here.setdefault(step, {})
        if not isinstance(here, dict):
            yield Fault(1, f"Another file already gives {step!r} a value that is not a mapping.", "Keep one of them.")
            return
    for path in _merge(here, value, ()):
        message = f"{'.'.join(path)} is given by another data file too."
        yield Fault(read.find((*prefix, *path))[1], message, "Keep one of them.")


def _json(raw: bytes) -> tuple[Any, list[Fault]]:
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
        return None, [Fault(error.lineno, f"Not JSON: {error.msg}.", "Correct the line.")]
    except (ValueError, RecursionError) as error:
        told = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "nested too deep or a number too long"
        return None, [Fault(1, f"Not JSON that can be read: {told}.", "Correct the file.")]
    faults = [Fault(1, f"The key {key!r} is given twice.", "Keep one of them.") for key in twice]
    if not isinstance(value, dict):
        faults.append(Fault(1, "The file is not an object.", "Start with `{`."))
    return value, faults


def _inexact(value: Any, path: Path) -> Iterator[tuple[Path, str, str]]:
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
