"""Where in the data files a value stands, so that a problem with it can name file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from gateway.documents import Document

Path = tuple[str | int, ...]

_SPACE = re.compile(r"[ \t\r\n]*")
_raw_decode = json.JSONDecoder().raw_decode


class DataFile(NamedTuple):
    """One data file: its name in the folder, the path below `data` that the folder gives it, and its lines.

    `document` is a YAML file, `text` a JSON file.
    """

    file: str
    prefix: tuple[str, ...]
    document: Document | None = None
    text: str = ""

    def find(self, path: Path) -> tuple[int, int]:
        """How many steps of `path` (below `data`) this file has, and the line of the last of them."""
        shared = path[: len(self.prefix)]
        if shared != self.prefix[: len(shared)]:
            return -1, 0
        inside = path[len(self.prefix) :]
        found, line = self._in_yaml(inside) if self.document is not None else _in_json(self.text, inside)
        return len(shared) + found, line

    def _in_yaml(self, path: Path) -> tuple[int, int]:
        assert self.document is not None
        node, depth = self.document.root, 0
        for step in path:
            child = node.children.get(step)
            if child is None:
                break
            node, depth = child, depth + 1
        return depth, self.document.line(*path)


class DataFiles:
    """All data files of a folder. Look-ups are slow and meant for problems only."""

    def __init__(self) -> None:
        self._files: list[DataFile] = []

    def add(self, file: DataFile) -> None:
        self._files.append(file)

    def place(self, path: Path) -> tuple[str, int]:
        """File (as it is named in the folder) and line of the value at `path` below `data`, or of what holds it."""
        best, place = -1, ("", 0)
        for one in self._files:
            depth, line = one.find(path)
            if depth > best:
                best, place = depth, (one.file, line)
        return place


def _in_json(text: str, path: Sequence[str | int]) -> tuple[int, int]:
    """As `DataFile.find`, in a JSON text that is known to be valid."""
    at, line = _skip(text, 0), 1
    for depth, step in enumerate(path):
        found = _key(text, at, step) if text[at] == "{" else _item(text, at, step)
        if found is None:
            return depth, line
        marked, at = found
        line = text.count("\n", 0, marked) + 1
    return len(path), line


def _key(text: str, at: int, wanted: str | int) -> tuple[int, int] | None:
    """Of an object that starts at `at`: where the key stands, and where its value starts."""
    at = _skip(text, at + 1)
    while text[at] == '"':
        key, end = _raw_decode(text, at)
        value = _skip(text, _skip(text, end) + 1)  # past the colon
        if key == wanted:
            return at, value
        _, end = _raw_decode(text, value)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return None


def _item(text: str, at: int, wanted: str | int) -> tuple[int, int] | None:
    """Of an array that starts at `at`: where the item stands, twice."""
    if text[at] != "[" or not isinstance(wanted, int):
        return None
    at, index = _skip(text, at + 1), 0
    while text[at] != "]":
        if index == wanted:
            return at, at
        _, end = _raw_decode(text, at)
        at, index = _skip(text, end), index + 1
        if text[at] == ",":
            at = _skip(text, at + 1)
    return None


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()
