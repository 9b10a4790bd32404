"""Shell commands of the pages: subcommands and flags exist, required arguments are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from gateway.commands.reference import commands
from tests.docs.pages import Snippet, code_words, snippets, written

_COMMANDS = dict(commands())


def _lines(snippet: Snippet) -> Iterator[list[str]]:
    for line in snippet.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and re.fullmatch(r"(?:\.venv/bin/)?gateway", words[0]):
            yield words[1:]


def _check(words: list[str]) -> None:
    name = next(
        (" ".join(["gateway", *words[:size]]) for size in (2, 1) if " ".join(["gateway", *words[:size]]) in _COMMANDS),
        None,
    )
    assert name is not None, f"there is no command {' '.join(words)}"
    rest = words[len(name.split()) - 1 :]
    if ">" in rest:
        rest = rest[: rest.index(">")]
    # click's own parser: unknown flags, missing and surplus arguments raise; nothing is run.
    _COMMANDS[name].make_context(name, rest)


@pytest.mark.parametrize("snippet", snippets("bash"), ids=lambda one: one.id)
def test_gateway_commands_in_snippets_are_valid(snippet: Snippet) -> None:
    for words in _lines(snippet):
        _check(words)


def test_gateway_commands_named_in_prose_exist() -> None:
    found = 0
    for page in written():
        for word in code_words(page):
            # `gateway policy check`, and the short form `gateway agents`, which names a whole group
            match = re.fullmatch(r"gateway( [a-z-]+)+?( .*)?", word)
            if match is None:
                continue
            found += 1
            names = re.match(r"gateway(?: [a-z-]+)+", word)
            assert names is not None
            assert any(
                f"{name} ".startswith(f"{names[0]} ") or f"{names[0]} ".startswith(f"{name} ") for name in _COMMANDS
            ), f"{page.name}: {word}"
    assert found > 20
