"""Files that people write: every fault is told with its line and what to do; nothing crashes the reader."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from gateway import documents, yaml_lines
from gateway.documents import Problem


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    effect: Literal["read", "write"]
    note: str = ""


class Cat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["cat"]
    whiskers: int = 0


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["dog"]
    barks: bool = True


class Page(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: Literal[1]
    country: str = ""
    leaves: dict[str, Leaf] = {}
    pets: list[Annotated[Cat | Dog, Field(discriminator="type")]] = []


def problems(text: str | bytes, model: type[BaseModel] = Page) -> list[Problem]:
    raw = text.encode() if isinstance(text, str) else text
    document, found = documents.parse(raw, "f.yaml")
    return found if document is None else documents.validate(document, model)[1]


def only(text: str | bytes) -> Problem:
    (problem,) = problems(text)
    return problem


def data(text: str) -> Any:
    document, found = documents.parse(text.encode(), "f.yaml")
    assert document is not None, found
    return document.data


def test_a_typo_is_told_once_with_its_line_and_what_was_meant() -> None:
    problem = only("version: 1\nleaves:\n  a:\n    effcet: write\n")
    assert problem.line == 4
    assert str(problem) == "f.yaml:4: Unknown key 'leaves.a.effcet'. Did you mean 'effect'?"


def test_all_problems_are_told_at_once_in_order_of_lines() -> None:
    found = problems("version: 2\nleaves:\n  a: {effect: raed}\n  b: {note: 3}\npets:\n  - {type: cow}\n")
    assert [problem.line for problem in found] == [1, 3, 4, 4, 6]


def test_a_key_that_resembles_nothing_lists_what_is_allowed() -> None:
    assert only("version: 1\nqqq: 1\n").mend == "Allowed here: version, country, leaves, pets."


def test_a_typo_inside_a_tagged_union_is_found_at_its_own_line() -> None:
    problem = only("version: 1\npets:\n  - type: cat\n    wiskers: 3\n")
    assert (problem.line, problem.mend) == (4, "Did you mean 'whiskers'?")


def test_a_suggestion_is_never_a_key_that_is_already_there() -> None:
    problem = only("version: 1\nleaves: {a: {effect: read, effects: read}}\n")
    assert problem.mend != "Did you mean 'effect'?"


def test_values_are_never_repeated_since_they_may_be_secrets() -> None:
    found = problems("version: 1\ncountry: [hunter2]\nleaves: {a: {effect: hunter2}}\n")
    assert len(found) == 2
    assert not any("hunter2" in str(problem) for problem in found)


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "NO", "12:30", "0777x", "1_000", "2027-01-01"])
def test_words_that_old_yaml_reads_as_something_else_stay_words(word: str) -> None:
    assert data(f"a: {word}") == {"a": word}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0x1f", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        (".inf", float("inf")),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: Any) -> None:
    assert data(f"a: {text}") == {"a": value}


def test_a_number_where_text_is_wanted_says_to_quote_it() -> None:
    assert only("version: 1\ncountry: 49\n").mend == "Put the value in quotes."


def test_a_duplicate_key_is_told_with_both_lines() -> None:
    problem = only("version: 1\ncountry: a\ncountry: b\n")
    assert problem.line == 3
    assert "first on line 2" in problem.message


def test_several_duplicate_keys_are_all_told() -> None:
    assert [problem.line for problem in problems("a: 1\na: 2\nb: {c: 1, c: 2}\n")] == [2, 3]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("- a\n- b\n", 1, "not a mapping"),
        ("just text", 1, "not a mapping"),
        ("a: 1\n\tb: 2\n", 2, "tab"),
        ("a: b: c\n", 1, "Not YAML"),
        ("a: [1, 2\n", 2, "Not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: 1\nb: !!python/object/apply:os.system [x]\n", 2, "explicit tag"),
        ("a: 1\nb: *nowhere\n", 2, "alias"),
        ("a: &x [*x]\n", 1, "alias"),
        ("a: 1\n[1]: 2\n", 2, "key is not a word"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "Merge keys"),
        (b"a: 1\nb: \xff\n", 2, "Not UTF-8"),
        (b"a: 1\nb: \x01\n", 2, "control character"),
    ],
)
def test_text_that_cannot_stand_is_one_clear_problem(text: str | bytes, line: int, words: str) -> None:
    problem = only(text)
    assert (problem.line, words in problem.message) == (line, True), problem


@pytest.mark.parametrize("text", ["[" * 200_000, "- " * 200_000, '{"a":' * 100_000, "? " * 100_000])
def test_deep_nesting_is_refused_and_does_not_crash(text: str) -> None:
    assert "deeper" in only(text).message or "Not YAML" in only(text).message


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    assert "expand" in only("\n".join(lines)).message


def test_a_plain_alias_works() -> None:
    assert data("a: &x {k: 1}\nb: *x\n") == {"a": {"k": 1}, "b": {"k": 1}}


def test_too_many_values_are_refused() -> None:
    text = "a: [" + "1," * yaml_lines.MAX_NODES + "]"
    assert "More than" in only(text).message


def test_a_giant_file_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    file.write_bytes(b"#" * (documents.MAX_BYTES + 1))
    _, found = documents.read(file, Page)
    assert "Larger than" in found[0].message


def test_a_missing_file_and_a_folder_are_problems_not_exceptions(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        value, found = documents.read(path, Page)
        assert value is None
        assert found[0].line == 0
        assert str(found[0]).startswith(f"{path}: Cannot be read")


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert problems(b"\xef\xbb\xbfversion: 1\n") == []


def test_a_huge_number_is_no_crash() -> None:
    assert problems("version: " + "9" * 5000)


def test_warnings_say_so() -> None:
    assert str(Problem("f", 3, "Odd.", "Look.", "warning")) == "f:3: warning: Odd. Look."


@given(st.text(max_size=200))
def test_no_text_at_all_crashes_the_reader(text: str) -> None:
    problems(text.encode("utf-8", "surrogatepass"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=12,
    )
)
def test_no_shape_of_data_crashes_the_checking(value: Any) -> None:
    import json

    problems(json.dumps({"version": 1, "leaves": value, "pets": value}))
