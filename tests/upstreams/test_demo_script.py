"""Scripts: what a rule may say, and that every mistake in one is told with its line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.upstreams import demo_script
from gateway.upstreams.demo_script import Line, Talk


def load(folder: Path, text: str) -> demo_script.Script:
    path = folder / "script.yaml"
    path.write_text(text)
    script, problems = demo_script.load(path)
    assert problems == []
    assert script is not None
    return script


def talk(user: str, *offered: str, tool: str | None = None, result: str | None = None) -> Talk:
    return Talk(user, offered, tool, result)


def test_the_packaged_script_stands() -> None:
    script, problems = demo_script.load(None)
    assert problems == []
    assert script is not None


@pytest.mark.parametrize(
    "text",
    [
        "pay 1" + " " * 4000,
        "pay 1 to " * 500,
        "pay 25 EUR to " + "a-" * 2000 + "!",
        "pay 1 to a" + " reference" * 400,
        "close " * 800,
    ],
)
def test_the_packaged_script_can_t_be_kept_busy(text: str) -> None:
    """Its expressions run on what agents send: bounded repetitions only."""
    script, _ = demo_script.load(None)
    assert script is not None
    begun_s = time.process_time()
    script.answer(talk(text, "transfer", "get_balance", "list_payees", "close_account"))
    assert time.process_time() - begun_s < 0.2


def test_the_first_rule_that_fits_decides(tmp_path: Path) -> None:
    script = load(
        tmp_path,
        """
version: 1
rules:
  - {if: {user: "^a"}, say: first}
  - {if: {contains: B}, say: second}
  - {if: {after_tool: true}, say: "{tool}={result}"}
""",
    )
    assert script.answer(talk("ab")).text == "first"
    assert script.answer(talk("xbx")).text == "second"
    assert script.answer(talk("ab", tool="t", result="7")).text == "t=7"
    assert script.answer(talk("zzz")).text == "The script of this model has no rule for that."


def test_templates_fill_texts_at_any_depth_and_numbers_stay_numbers(tmp_path: Path) -> None:
    script = load(
        tmp_path,
        """
version: 1
rules:
  - if: {user: "(?P<n>[-\\\\d.,]+) (?P<word>\\\\w+)(?P<rest> .*)?"}
    say: "{word:lower} {n:cents} {rest|none} of {user}"
    call:
      tool: t
      arguments: {cents: "{n:cents}", whole: "{n:int}", deep: [{w: "<{word}>"}], fixed: 3, flag: true}
""",
    )
    line = script.answer(talk("12.345 Word", "s__t"))
    assert line.text == "word 1235 none of 12.345 Word"
    assert line.calls == (("s__t", {"cents": 1235, "whole": 12, "deep": [{"w": "<Word>"}], "fixed": 3, "flag": True}),)
    assert script.answer(talk("1.2.3 x", "t")).calls[0][1]["cents"] == 0


def test_several_calls_may_be_proposed_but_only_offered_ones(tmp_path: Path) -> None:
    script = load(tmp_path, "version: 1\nrules: [{call: [{tool: a}, {tool: b}]}]\n")
    assert script.answer(talk("x", "a", "s__b")) == Line(None, (("a", {}), ("s__b", {})), 0.0, 0.0)
    assert script.answer(talk("x", "a")).calls == ()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("version: 1\nrules:\n  - if: {user: '('}\n    say: x\n", 3, "not a regular expression"),
        ("version: 1\nrules:\n  - say: x\n  - sai: y\n", 4, "sai"),
        ("version: 1\nrules:\n  - if: {user: x}\n", 3, "needs `say` or `call`"),
        ("version: 1\nrules:\n  - say: 'hi {name}'\n", 3, "{name}"),
        ("version: 1\nrules:\n  - {if: {user: x}, say: '{result}'}\n", 3, "{result}"),
        ("version: 1\nrules:\n  - say: x\n    delay_s: -1\n", 4, "delay_s"),
        ("version: 2\nrules:\n  - say: x\n", 1, "version"),
        ("version: 1\nrules: []\n", 2, "rules"),
        ("version: 1\nrules:\n  - say: [x\n", 4, ""),
    ],
)
def test_a_mistake_is_told_with_its_file_and_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(text)
    script, problems = demo_script.load(path)
    assert script is None
    assert problems
    assert problems[0].file == str(path)
    assert problems[0].line == line
    assert words in f"{problems[0].message} {problems[0].mend}"


def test_a_script_that_is_not_there_is_told() -> None:
    script, problems = demo_script.load("/nowhere/script.yaml")
    assert script is None
    assert len(problems) == 1
