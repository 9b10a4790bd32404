"""Readers of a chat completion request as providers have them, each with its own idea of which keys are the same.

`Reading` is what a provider acts on. `reading` follows the rules of one kind of reader; `Go` asks a real one.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.servers import missing

Pairs = list[tuple[str, Any]]
Same = Callable[[str], str]


class Reading(NamedTuple):
    """What decides on grant, price, reservation and policy."""

    model: str = ""
    n: int = 0
    stream: bool = False
    cap: int = 0
    tier: str = ""
    usage: bool = False
    tools: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()  # types of the parts of all messages


# ---------------------------------------------------------------- which keys are the same


def go(key: str) -> str:
    """encoding/json: letters of ASCII in either case, and what Unicode's simple folding adds to them."""
    return key.replace("\u017f", "s").replace("\u212a", "k").lower()


def dotnet(key: str) -> str:
    """StringComparer.OrdinalIgnoreCase: character by character in upper case."""
    return "".join(one.upper() if len(one.upper()) == 1 else one for one in key)


def java(key: str) -> str:
    """String.equalsIgnoreCase: upper case, then lower case of that."""
    return "".join(one.upper().lower()[:1] if len(one.upper()) == 1 else one for one in key)


def protobuf(key: str) -> str:
    """Names in either form, `max_tokens` and `maxTokens`; as encoding/json/v2 with `case:ignore`."""
    return key.replace("_", "").replace("-", "").lower()


def normalised(key: str) -> str:
    """A store that normalises keys before it compares them without case."""
    return unicodedata.normalize("NFKC", key).casefold()


def c_string(key: str) -> str:
    """cJSON: a key ends at its NUL, and case does not count."""
    return key.split("\0", 1)[0].lower()


def invisible(key: str) -> str:
    """A culture-aware comparison: what is not seen does not count."""
    return "".join(one for one in key if unicodedata.category(one) != "Cf").lower()


SAME: tuple[Same, ...] = (str, go, dotnet, java, protobuf, normalised, c_string, invisible)


# ---------------------------------------------------------------- readers


def reading(body: bytes, same: Same, *, first: bool = False) -> Reading:
    """`body` as a reader takes it for which `same` keys are equal; of two it takes the last, or the `first`."""
    asked = _Object(json.loads(body, object_pairs_hook=lambda pairs: pairs), same, first)
    options = _Object(asked.get("stream_options"), same, first)
    tools = [_Object(one, same, first) for one in asked.get("tools") or []]
    names = [_Object(tool.get("custom") or tool.get("function") or tool.pairs, same, first) for tool in tools]
    functions = [_Object(one, same, first) for one in asked.get("functions") or []]
    messages = [_Object(one, same, first) for one in asked.get("messages") or []]
    contents = [message.get("content") for message in messages]
    return Reading(
        model=asked.get("model") or "",
        n=asked.get("n") or 0,
        stream=asked.get("stream") or False,
        cap=max(asked.get("max_tokens") or 0, asked.get("max_completion_tokens") or 0),
        tier=asked.get("service_tier") or "",
        usage=options.get("include_usage") or False,
        tools=tuple(one.get("name") or one.get("type") for one in [*names, *functions]),
        parts=tuple(
            _Object(part, same, first).get("type") or ""
            for content in contents
            if isinstance(content, list)
            for part in content
            if _is_object(part)
        ),
    )


class _Object:
    def __init__(self, pairs: Any, same: Same, first: bool) -> None:
        self.pairs: Pairs = pairs if _is_object(pairs) else []
        self._same = same
        self._first = first

    def get(self, name: str) -> Any:
        found = [value for key, value in self.pairs if self._same(key) == self._same(name)]
        return (found[0] if self._first else found[-1]) if found else None


def _is_object(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, tuple) for one in value)


class Go:
    """A real reader in Go."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary

    def read(self, bodies: Iterable[bytes]) -> list[Reading]:
        lines = b"\n".join(map(base64.b64encode, bodies)) + b"\n"
        done = subprocess.run([self._binary], input=lines, capture_output=True, check=True, timeout=60)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert not [one["malformed"] for one in found if "malformed" in one]
        return [Reading(**one | {"tools": tuple(one["tools"]), "parts": tuple(one["parts"])}) for one in found]


def build(folder: Path) -> Go:
    """The reader, built; the test is skipped where there is no Go."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed; the readers in Python are asked all the same")
    binary = folder / "reader"
    source = Path(__file__).parent / "reader_go" / "main.go"
    built = subprocess.run(["go", "build", "-o", binary, source], check=False, capture_output=True, timeout=110)
    if built.returncode:
        missing(f"the Go reader does not build: {built.stderr.decode()[-300:]}")
    return Go(binary)
