"""A draft loads as it is, guesses on the safe side, marks every guess, and is not broken by an agent's words."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import Manifest, read_registry
from gateway.catalog.drafting import Draft, draft, server_fits, server_of

HOSTILE = [
    '"\nenabled: true\ntools: {evil: {risk: low, effect: read}}\n#',
    "\x1b[2J\x1b]0;owned\x07",
    "\u202esdrawkcab",
    "*/ # }}{{ : - | > & * ! % @ `",
    "\x00\x85\u2028\u2029\ufeff",
    "😀" * 10,
    "'" * 3 + '"""' + "\\" * 3,
    "x" * 5000,
]


def seen(
    tool: str,
    description: str = "",
    required: Iterable[Any] = (),
    properties: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    schema = {"type": "object", "properties": {**(properties or {}), **more}, "required": list(required)}
    return {"tool": tool, "description": description, "parameters": schema}


def loaded(folder: Path, made: Draft) -> Manifest:
    """The draft as the registry reads it once it is put there."""
    (folder / "draft.yaml").write_text(made.text)
    manifests, problems = read_registry(folder, {})
    assert manifests is not None, [str(problem) for problem in problems]
    assert problems == []
    (manifest,) = manifests
    return manifest


def test_a_draft_reads_like_a_manifest_that_a_person_must_review(tmp_path: Path) -> None:
    made = draft(
        "coder",
        "coder",
        "dana",
        [
            seen("send_mail", "Sends a mail.", ["to", "body"], to={"type": "string"}, body={}, attachment_path={}),
            seen("get_rows", required=["limit"], limit={"type": "integer"}),
            seen("close_file", fileId={}),
        ],
    )
    manifest = loaded(tmp_path, made)
    assert (manifest.server, manifest.kind, manifest.owner) == ("coder", "client", "dana")
    mail, rows, close = (manifest.tools[name] for name in ("send_mail", "get_rows", "close_file"))
    assert (mail.effect, mail.risk) == ("egress", "high")
    assert (rows.effect, rows.risk) == ("read", "medium")
    assert (close.effect, close.risk) == ("write", "high")
    assert mail.sentence == "Call send_mail with to {to}, body {body}"
    assert {name: one.kind for name, one in mail.arguments.items()} == {
        "to": "text",
        "body": "text",
        "attachment_path": "path",
    }
    assert close.sentence == "Call close_file"
    assert '    # "Sends a mail."\n' in made.text
    for line in made.text.splitlines():
        if re.match(r"\s+(risk|effect|sentence): |owner: ", line) or "kind: path" in line:
            assert " # review: " in line


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("get_user", "read"),
        ("listFiles", "read"),
        ("SearchIndex", "read"),
        ("read", "read"),
        ("read_mail", "read"),
        ("delete_user", "destructive"),
        ("get_and_delete", "destructive"),
        ("rm", "destructive"),
        ("DROP_TABLE", "destructive"),
        ("send_report", "egress"),
        ("http_get", "egress"),
        ("fetchPage", "egress"),
        ("web_search", "egress"),
        ("WebFetch", "egress"),
        ("mail", "egress"),
        ("get_or_create", "write"),
        ("read_write", "write"),
        ("update_user", "write"),
        ("bash", "write"),
        ("transfer", "write"),
        ("readme", "write"),
        ("getter", "write"),
        ("x", "write"),
        ("__", "write"),
        ("42", "write"),
    ],
)
def test_what_a_name_does_not_plainly_say_is_taken_for_the_worse(name: str, effect: str) -> None:
    (tool,) = draft("a", "a", "dana", [seen(name)]).tools
    assert tool.effect == effect
    assert tool.risk == ("medium" if effect == "read" else "high")


@pytest.mark.parametrize(
    ("argument", "effect"),
    [("url", "egress"), ("callbackUri", "egress"), ("command", "write"), ("sql", "write"), ("name", "read")],
)
def test_a_read_that_takes_a_url_or_code_is_none(argument: str, effect: str) -> None:
    assert draft("a", "a", "dana", [seen("get_it", properties={argument: {}})]).tools[0].effect == effect
    hidden: dict[str, Any] = {f"argument_{number}": {} for number in range(200)} | {argument: {}}
    assert draft("a", "a", "dana", [seen("get_it", properties=hidden)]).tools[0].effect == effect


@pytest.mark.parametrize(
    ("argument", "schema", "kind", "reviewed"),
    [
        ("path", {}, "path", True),
        ("file_path", {"type": "string"}, "path", True),
        ("notebookPath", None, "path", True),
        ("workdir", {}, "path", True),
        ("file_count", {"type": "integer"}, "text", False),
        ("url", {}, "url", True),
        ("target", {"type": "string", "format": "uri"}, "url", True),
        ("recipient_email", {}, "email", True),
        ("to", {"type": "string", "format": "email"}, "email", True),
        ("shippingAddress", {}, "address", True),
        ("order_id", {}, "object_id", True),
        ("userID", {"type": "integer"}, "object_id", True),
        ("ids", {"type": "array"}, "object_id", True),
        ("amount_cents", {"type": "integer"}, "text", True),
        ("unitPrice", {}, "text", True),
        ("identity", {}, "text", False),
        ("body", {"type": ["string", "null"]}, "text", False),
    ],
)
def test_argument_kinds_are_guessed_from_names_and_schemas(
    argument: str, schema: Any, kind: str, reviewed: bool
) -> None:
    made = draft("a", "a", "dana", [seen("do", properties={argument: schema})])
    (found,) = made.tools[0].arguments
    assert found.kind == kind
    (line,) = [line for line in made.text.splitlines() if f"{argument}: {{kind" in line]
    assert ("# review: " in line) is reviewed


@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_words_break_neither_the_file_nor_a_terminal(tmp_path: Path, words: str) -> None:
    tools = [
        seen("look", words, [words, "ok"], {"ok": {"description": words}, words: {"type": words}}),
        seen(words, "d"),
    ]
    made = draft("coder", "coder", words, tools)
    assert made.text.isascii()
    assert all(character.isprintable() for character in made.text.replace("\n", ""))
    manifest = loaded(tmp_path, made)
    assert set(manifest.tools) == {"look"}
    assert manifest.owner == words
    assert "ok" in manifest.tools["look"].arguments
    assert (manifest.tools["look"].sentence or "").startswith("Call look")
    assert made.left_out == (words,)
    assert (
        max(len(line) for line in made.text.replace(f"owner: {words}", "").splitlines() if "owner" not in line) < 2000
    )


@pytest.mark.parametrize("name", ["a b", "{x}", "x:y", "a!b", "", "a\tb", "<<", "x" * 129, "\u202e", "\x01"])
def test_arguments_that_a_manifest_cannot_name_are_left_out_and_told(tmp_path: Path, name: str) -> None:
    made = draft("a", "a", "dana", [seen("look", "", [name, "ok"], {"ok": {}, name: {}})])
    assert set(loaded(tmp_path, made).tools["look"].arguments) == {"ok"}
    assert made.tools[0].left_out == (name,)
    assert "      # left out" in made.text


@pytest.mark.parametrize(
    "name", ["null", "true", "no", "y", "1", "1e3", "0x1", "-", "--", "~", "a.b", "x[0]", "ä", "#"]
)
def test_names_that_yaml_could_misread_stand_in_quotes(tmp_path: Path, name: str) -> None:
    made = draft("a", "a", "dana", [seen("look", "", [name], {name: {}})])
    assert set(loaded(tmp_path, made).tools["look"].arguments) == {name}
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        assert set(loaded(tmp_path, draft("a", "a", "dana", [seen(name)])).tools) == {name}


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"properties": None},
        {"properties": {"a": {}}, "required": "a"},
        {"properties": {"a": 1}, "required": [{}]},
    ],
)
def test_a_schema_that_is_none_is_no_fault(parameters: Any) -> None:
    made = draft("a", "a", "dana", [{"tool": "look", "description": "", "parameters": parameters}])
    assert made.tools[0].sentence == "Call look"


def test_what_is_too_much_for_a_file_is_refused_in_a_sentence() -> None:
    many = [seen(f"t{number}", properties={f"{'x' * 100}{n}": {} for n in range(64)}) for number in range(500)]
    with pytest.raises(ValueError, match=r"Larger than|More than"):
        draft("a", "a", "dana", many)


@given(
    st.lists(
        st.tuples(
            st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64),
            st.text(max_size=200),
            st.dictionaries(st.text(min_size=1, max_size=20), st.none(), max_size=5),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda one: one[0],
    )
)
def test_any_words_give_a_draft_that_loads(tools: list[tuple[str, str, dict[str, None]]]) -> None:
    made = draft("a", "a", "dana", [seen(name, words, known, dict(known)) for name, words, known in tools])
    assert [one.tool for one in made.tools] == [name for name, _, _ in tools]
    assert made.text.isascii()


@pytest.mark.parametrize(
    ("agent", "server"),
    [
        ("coder", "coder"),
        ("Desk.Agent", "desk-agent"),
        ("client", "client-2"),
        ("gateway", "gateway-2"),
        ("a__b", "a_b"),
        ("x" * 100, "x" * 32),
        ("___", "agent"),
        ("9", "9"),
        ("taken", "taken-3"),
    ],
)
def test_a_server_is_named_like_its_agent_as_far_as_that_may_stand(agent: str, server: str) -> None:
    found = server_of(agent, {"taken", "taken-2"})
    assert found == server
    assert server_fits(found)
