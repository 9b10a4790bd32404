"""Whatever a request is spelt like: what providers read in what is sent on is what was decided on, or it is refused."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import msgspec
import pytest

from gateway.actions import Action, Agent, Caller, Kind, ModelTarget, Session, Trace
from gateway.doors.openai.fields import MAX_NAME_CHARS, MAX_UNKNOWN, REQUEST, Shape
from gateway.doors.openai.request import ChatRequest, declared_parameters, outbound, parse_request
from gateway.errors import Refusal
from tests.doors.openai.readers import SAME, Reading, build, reading

TARGET = ModelTarget(alias="cheap", provider="p", model="real-model")
PART = '{"type":"text","text":"hi"}'
PLAIN = {
    "model": '"cheap"',
    "messages": f'[{{"role":"user","content":"hi"}},{{"role":"user","content":[{PART}]}}]',
    "n": "2",
    "max_tokens": "7",
    "stream": "true",
    "stream_options": '{"include_usage":true}',
    "service_tier": '"default"',
    "tools": '[{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}]',
}
OTHER = {
    "model": '"gpt-5-pro"',
    "messages": '[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,x"}}]}]',
    "n": "100",
    "max_tokens": "9999",
    "stream": "false",
    "stream_options": '{"include_usage":false}',
    "service_tier": '"priority"',
    "tools": '[{"type":"function","function":{"name":"wipe"}}]',
}


def body(pairs: list[tuple[str, str]]) -> bytes:
    """Keys and values as JSON text; a key is given as it stands between the quotes."""
    return ("{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}").encode()


def action(request: ChatRequest) -> Action:
    return Action(
        id="1",
        kind=Kind.MODEL_INVOKE,
        door="openai.chat",
        caller=Caller(Agent(id="a"), None, "k", "key"),
        session=Session("s", "minted"),
        trace=Trace("0" * 32, "0" * 16),
        target=request.model,
        request_id="r",
        received_ns=0,
        arguments=request.arguments,
        body=request.body,
        stream=request.stream,
    )


def refusal(raw: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_request(raw)
    assert caught.value.code == "malformed"
    return caught.value


# ---------------------------------------------------------------- other spellings of one key


def spellings(name: str) -> list[str]:
    """Other spellings of a key that some reader takes for it, as JSON text."""
    letters = [index for index, letter in enumerate(name) if letter.isalpha()]
    middle = letters[len(letters) // 2]
    found = {
        name.upper(),
        name.title(),
        name[:middle] + name[middle].upper() + name[middle + 1 :],
        name.replace("s", "\u017f"),
        name.replace("k", "\u212a"),
        name.replace("i", "\u0131"),
        name.replace("i", "\u0130"),
        chr(ord(name[0]) + 0xFEE0) + name[1:],
        "".join(chr(ord(letter) - 97 + 0x1D41A) if letter.isalpha() else letter for letter in name),
        f"{name[0]}\u200b{name[1:]}",
        f"\ufeff{name}",
        f"{name}\u00ad",
        f"{name}\ufe0f",
        f"{name}\\u0000",
        f"{name}\\u0000x",
        name.replace("_", "-"),
        name.replace("_", ""),
        json.dumps(name.upper())[1:-1].replace(name[0].upper(), f"\\u{ord(name[0].upper()):04x}", 1),
    }
    if "_" in name:
        first, *rest = name.split("_")
        found.add(first + "".join(word.title() for word in rest))
    return sorted(found - {name})


def levels(shape: Shape, *path: str) -> list[tuple[tuple[str, ...], str]]:
    """Every field of the table, with the path to the object that has it."""
    found = [(path, name) for name in sorted(shape.names)]
    for name, inner in shape.nested.items():
        found += levels(inner, *path, name)
    return found


ARRAYS = {"messages", "content", "tools", "functions"}
KNOWN = {
    "model": '"cheap"',
    "messages": "[]",
}


def nested(path: tuple[str, ...], inner: str) -> str:
    """`inner`, the members of an object, within the objects and arrays of `path`."""
    text = "{" + inner + "}"
    for step in reversed(path):
        text = f'{{"{step}":[{text}]}}' if step in ARRAYS else f'{{"{step}":{text}}}'
    return text[1:-1]


@pytest.mark.parametrize(("path", "name"), levels(REQUEST), ids=lambda value: str(value))
def test_no_other_spelling_of_a_field_passes_at_any_level(path: tuple[str, ...], name: str) -> None:
    for spelling in spellings(name):
        inside = nested(path, f'"{spelling}":null')
        rest = ",".join(f'"{key}":{value}' for key, value in KNOWN.items() if not path or path[0] != key)
        inside = inside.replace('{"custom":', '{"type":"custom","custom":')
        refused = refusal(f"{{{rest},{inside}}}".encode())
        assert f"is another spelling of {name}; send {name} only" in refused.message, spelling
        assert refused.message.isascii()
        assert len(refused.message) < 300
        place = str(refused.detail["param"])
        assert [step.split("[")[0] for step in place.split(".")][: len(path)] == list(path)


@pytest.mark.parametrize(
    "key",
    [
        "model_list",
        "mode",
        "_model",
        "model_",
        "nn",
        "\u043c\u043edel",
        "x",
        "",
        "top_k",
        "ns",
        "t\u00f3ols",
        "\U0001f600",
    ],
)
def test_other_fields_survive_whatever_they_are_called(key: str) -> None:
    quoted = json.dumps(key)
    raw = f'{{"model":"cheap",{quoted}:1.50,"messages":[{{"role":"user","content":"x",{quoted}: {{"a": 1}}}}]}}'
    sent = outbound(action(parse_request(raw.encode())), TARGET)
    assert b":1.50" in sent
    assert json.loads(sent)[key] == 1.5
    assert json.loads(sent)["messages"][0][key] == {"a": 1}


def test_a_field_is_named_with_its_place() -> None:
    messages = '[{"role":"user","content":"x"},{"role":"user","content":[{"Type":"text"}]}]'
    refused = refusal(body([("model", '"cheap"'), ("messages", messages)]))
    assert refused.detail["param"] == "messages[1].content[0].Type"
    tools = '[{"type":"function","function":{"name":"a"}},{"type":"custom","custom":{"name":"b","NAME":"c"}}]'
    refused = refusal(body([("model", '"cheap"'), ("messages", "[]"), ("tools", tools)]))
    assert refused.detail["param"] == "tools[1].custom.NAME"
    assert refused.message == "The field tools[1].custom.NAME is another spelling of name; send name only."


def test_many_fields_of_its_own_cost_a_request_little_or_are_refused() -> None:
    plain = [("model", '"cheap"'), ("messages", "[]")]
    compatible = "\ufdfa" * 5  # each stands for eighteen letters
    began_s = time.process_time()
    parse_request(body([*plain, *[(f"{compatible}{number}", "1") for number in range(MAX_UNKNOWN)]]))
    for odd in (
        [f"x{number}" for number in range(MAX_UNKNOWN + 1)],
        ["x" * (MAX_NAME_CHARS + 1)],
        ["\ufdfa" * 250 + str(number) for number in range(50)],
    ):
        assert f"more than {MAX_UNKNOWN} fields" in refusal(body([*plain, *[(key, "1") for key in odd]])).message
    same = ",".join(f'{{"role":"user","content":"x","{compatible}":1}}' for _ in range(MAX_UNKNOWN + 1))
    parse_request(body([plain[0], ("messages", f"[{same}]")]))
    assert time.process_time() - began_s < 0.5


# ---------------------------------------------------------------- what every reader reads


def decided(request: ChatRequest) -> Reading:
    """What was decided on, as the provider should read it."""
    arguments = request.arguments
    asked = [arguments[name] for name in ("max_tokens", "max_completion_tokens") if name in arguments]
    fields = msgspec.json.decode(request.body)
    contents = [message.get("content") for message in fields["messages"]]
    return Reading(
        model=TARGET.model,
        n=arguments.get("n", 0),
        stream=request.stream,
        cap=max(asked) if asked else TARGET.max_output_tokens,
        tier=fields.get("service_tier") or "",
        usage=request.stream or ((fields.get("stream_options") or {}).get("include_usage") or False),
        tools=tuple(arguments.get("tools", ())),
        parts=tuple(part["type"] for content in contents if isinstance(content, list) for part in content),
    )


def escaped(key: str, index: int) -> str:
    return f"{key[:index]}\\u{ord(key[index]):04x}{key[index + 1 :]}"


def fuzzed(dice: random.Random) -> bytes:
    """A request in which some keys are there twice, spelt with escapes, or spelt otherwise, at any level."""

    def spelt(key: str) -> str:
        roll = dice.random()
        if roll < 0.1:
            return escaped(key, dice.randrange(len(key)))
        return dice.choice(spellings(key)) if roll < 0.13 else key

    def members(plain: dict[str, str], other: dict[str, str]) -> str:
        pairs = [(spelt(key), value) for key, value in plain.items()]
        pairs += [
            (spelt(key), other[key])
            for key in dice.sample(sorted(other), min(len(other), dice.choice((0, 0, 1, 1, 2))))
        ]
        dice.shuffle(pairs)
        space = dice.choice(("", "", " ", "\n"))
        return "{" + f",{space}".join(f'"{key}":{space}{value}' for key, value in pairs) + "}"

    def message() -> str:
        part = members({"type": '"text"', "text": '"hi"'}, {"type": '"image_url"', "text": '"x"'})
        picture = members({"type": '"image_url"', "image_url": '{"url":"data:,x"}'}, {"type": '"text"'})
        contents = ['"hi"', "null", f"[{part}]", f"[{part},{picture}]", "[]"]
        plain = {"role": '"user"', "content": dice.choice(contents)}
        return members(plain, {"role": '"system"', "content": dice.choice(contents), "name": '"x"'})

    def tool() -> str:
        named = members({"name": '"look"', "parameters": '{"type":"object"}'}, {"name": '"wipe"', "strict": "true"})
        kind = dice.choice(("function", "custom"))
        return members({"type": f'"{kind}"', kind: named}, {"type": '"web_search"', kind: named, "function": named})

    plain = {key: PLAIN[key] for key in ("model", *dice.sample(sorted(PLAIN), dice.randrange(len(PLAIN))))}
    plain["messages"] = f"[{','.join(message() for _ in range(dice.randrange(1, 4)))}]"
    if dice.random() < 0.5:
        plain["tools"] = f"[{tool()}]"
    if dice.random() < 0.2:
        plain["functions"] = "[" + members({"name": '"act"'}, {"name": '"wipe"'}) + "]"
    if dice.random() < 0.5:
        plain["stream_options"] = members({"include_usage": "true"}, {"include_usage": "false"})
    return members(plain, OTHER).encode()


@pytest.fixture(scope="module", name="accepted")
def _accepted() -> list[tuple[bytes, Reading]]:
    """What is sent on of many odd requests, with what was decided; the refused ones are left out."""
    dice = random.Random(20260709)
    found: list[tuple[bytes, Reading]] = []
    refused = 0
    for _ in range(1_200):
        raw = fuzzed(dice)
        try:
            request = parse_request(raw)
        except Refusal as refusal:
            assert refusal.code == "malformed"
            refused += 1
        else:
            found.append((outbound(action(request), TARGET), decided(request)))
    assert len(found) > 300
    assert refused > 300
    return found


@pytest.mark.parametrize("same", SAME, ids=lambda same: same.__name__)
def test_every_reader_reads_what_was_decided(accepted: list[tuple[bytes, Reading]], same: Any) -> None:
    for sent, wanted in accepted:
        assert reading(sent, same) == wanted, sent
        assert reading(sent, same, first=True) == wanted, sent


def test_a_reader_in_go_reads_what_was_decided(
    accepted: list[tuple[bytes, Reading]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    read = build(tmp_path_factory.mktemp("go")).read(sent for sent, _ in accepted)
    assert read == [wanted for _, wanted in accepted]


def test_the_readers_tell_the_attack_of_the_issue() -> None:
    attack = body([*PLAIN.items(), ("Model", '"gpt-5-pro"'), ("N", "100")])
    readings = {same.__name__: reading(attack, same) for same in SAME}
    assert (readings["str"].model, readings["str"].n) == ("cheap", 2)
    assert (readings["go"].model, readings["go"].n) == ("gpt-5-pro", 100)
    assert refusal(attack).detail["param"] == "Model"


# ---------------------------------------------------------------- what is written last


def test_what_the_gateway_controls_is_written_last_from_what_was_decided() -> None:
    raw = body([*PLAIN.items(), ("max_completion_tokens", " 5 "), ("vendor", "1.0")])
    request = parse_request(raw)
    sent = outbound(action(request), TARGET)
    assert list(json.loads(sent))[-5:] == ["stream_options", "stream", "max_tokens", "n", "model"]
    assert b'"max_tokens":7,"n":2,"model":"real-model"}' in sent
    unlimited = msgspec.structs.replace(TARGET, cap_field=None)
    assert b'"max_tokens":7,"max_completion_tokens":5,"n":2,"model":"real-model"}' in outbound(
        action(request), unlimited
    )


@pytest.mark.parametrize("value", ["[]", '"x"', "1", "true"])
def test_stream_options_that_are_no_object_are_refused(value: str) -> None:
    pairs = [("model", '"cheap"'), ("messages", "[]"), ("stream", "true"), ("stream_options", value)]
    assert refusal(body(pairs)).detail["param"] == "stream_options"


def test_stream_options_may_be_null() -> None:
    pairs = [("model", '"cheap"'), ("messages", "[]"), ("stream", "true"), ("stream_options", "null")]
    sent = outbound(action(parse_request(body(pairs))), TARGET)
    assert json.loads(sent)["stream_options"] == {"include_usage": True}


# ---------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    "raw",
    [
        b'\xef\xbb\xbf{"model":"cheap","messages":[]}',
        b'{"model":"cheap","messages":[]} {}',
        b'{"model":"cheap","messages":[]}\x00',
        b'{"model":"cheap","messages":[],"\\ud800":1}',
        b'{"model":"cheap","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"cheap","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"cheap","messages":[],"x":"\xed\xa0\x80"}',
        b'{"model":"cheap","messages":[],"x":"\xc0\xaf"}',
        b'{"model":"cheap","messages":[],/* */"x":1}',
        b'{"model":"cheap","messages":[],"x":NaN}',
        b'{"model":"cheap","messages":[],}',
        '{"model":"cheap","messages":[]}'.encode("utf-16"),
    ],
)
def test_a_body_that_is_not_json_in_utf8_is_refused(raw: bytes) -> None:
    assert "not a JSON object" in refusal(raw).message


def test_a_field_may_be_spelt_with_escapes_and_is_sent_without() -> None:
    request = parse_request(b'{"\\u006dodel":"ch\\u0065ap","messages":[{"r\\u006fle":"user","content":"x"}]}')
    assert request.model == "cheap"
    assert json.loads(outbound(action(request), TARGET))["model"] == "real-model"
    assert b'{"role":"user"' in request.body


@pytest.mark.parametrize("number", ["1.0", "1e2", '"5"', "true", "0", "-1", "-0", "[1]", "1e400"])
def test_a_number_that_decides_is_a_plain_positive_integer(number: str) -> None:
    for name in ("n", "max_tokens", "max_completion_tokens"):
        assert name in refusal(body([("model", '"cheap"'), ("messages", "[]"), (name, number)])).message


# ---------------------------------------------------------------- tools


@pytest.mark.parametrize(
    "name", ["", "a b", "a\\n", "\\u00e9", "a" * 129, "Wr\\u200bite", "a\\u0000", "a,b", "{a}", "a'b"]
)
@pytest.mark.parametrize(
    ("tools", "place"),
    [
        ('"tools":[{"type":"function","function":{"name":"ok"}},{"type":"function","function":{"name":"X"}}]', "tools[1].function.name"),
        ('"tools":[{"type":"custom","custom":{"name":"X"}}]', "tools[0].custom.name"),
        ('"tools":[{"function":{"name":"X"}}]', "tools[0].function.name"),
        ('"functions":[{"name":"ok"},{"name":"X"}]', "functions[1].name"),
        ('"tools":[{"type":"X"}]', "tools[0].type"),
    ],
)  # fmt: skip
def test_a_declared_tool_has_a_plain_name(tools: str, place: str, name: str) -> None:
    refused = refusal(f'{{"model":"cheap","messages":[],{tools.replace("X", name)}}}'.encode())
    assert refused.detail["param"] == place
    assert "1 to 128 of the characters A-Z a-z 0-9 _ . : / -" in refused.message


@pytest.mark.parametrize("name", ["a", "A.b:c/d-e_f", "a" * 128, "mcp__server__tool", "0"])
def test_these_names_are_taken_as_they_are(name: str) -> None:
    tools = f'[{{"type":"function","function":{{"name":"{name}"}}}}]'
    request = parse_request(body([("model", '"cheap"'), ("messages", "[]"), ("tools", tools)]))
    assert request.arguments["tools"] == [name]
    assert list(declared_parameters(request.body)) == [name]


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ('"tools":[F,{"type":"function","function":{"name":"look","parameters":{"x":1}}}]', "tools[1].function.name"),
        ('"tools":[F,{"type":"custom","custom":{"name":"look"}}]', "tools[1].custom.name"),
        ('"tools":[F],"functions":[{"name":"look","parameters":{"x":1}}]', "functions[0].name"),
    ],
)
def test_two_tools_of_one_name_are_refused_where_they_differ(more: str, place: str) -> None:
    function = '{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}'
    refused = refusal(f'{{"model":"cheap","messages":[],{more.replace("F", function)}}}'.encode())
    assert refused.detail["param"] == place
    assert "again, with another definition" in refused.message


def test_the_same_tool_twice_is_one_tool_and_names_are_told_apart_by_case() -> None:
    function = '{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}'
    other = function.replace("look", "Look").replace("object", "string")
    request = parse_request(
        body([("model", '"cheap"'), ("messages", "[]"), ("tools", f"[{function},{function},{other}]")])
    )
    assert declared_parameters(request.body) == {"look": {"type": "object"}, "Look": {"type": "string"}}


@pytest.mark.parametrize(
    ("tool", "place"),
    [
        ('{"type":"function","function":{"name":"a"},"custom":{"name":"b"}}', "tools[0].custom"),
        ('{"type":"web_search","function":{"name":"a"}}', "tools[0].function"),
        ('{"type":"Function","function":{"name":"a"}}', "tools[0].function"),
        ('{"type":1,"function":{"name":"a"}}', "tools[0].type"),
        ('{"type":"custom","function":{"name":"a"}}', "tools[0].function"),
    ],
)
def test_a_tool_that_can_be_taken_for_one_of_two_kinds_is_refused(tool: str, place: str) -> None:
    assert refusal(f'{{"model":"cheap","messages":[],"tools":[{tool}]}}'.encode()).detail["param"] == place


def test_a_type_that_is_null_is_a_function() -> None:
    tools = '[{"type":null,"function":{"name":"exec"}}]'
    request = parse_request(body([("model", '"cheap"'), ("messages", "[]"), ("tools", tools)]))
    assert request.arguments["tools"] == ["exec"]


def test_a_providers_own_tool_hides_no_schema_of_the_agents() -> None:
    function = '{"type":"function","function":{"name":"web_search","parameters":{"type":"object"}}}'
    tools = f'[{function},{{"type":"web_search"}}]'
    request = parse_request(body([("model", '"cheap"'), ("messages", "[]"), ("tools", tools)]))
    assert request.arguments["tools"] == ["web_search", "web_search"]
    assert declared_parameters(request.body) == {"web_search": {"type": "object"}}


def test_large_numbers_in_a_schema_survive() -> None:
    tools = (
        '[{"type":"function","function":{"name":"a","parameters":{"maximum":340282366920938463463374607431768211455}}}]'
    )
    request = parse_request(body([("model", '"cheap"'), ("messages", "[]"), ("tools", tools)]))
    assert b"340282366920938463463374607431768211455" in outbound(action(request), TARGET)
