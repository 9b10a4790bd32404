"""What providers and adversaries do to the deltas of one tool call, and what must become of the call then.

Each oddity changes the call's deltas in place. A delta is the member of `delta.tool_calls`: `{index, id, type,
function: {name, arguments}}`; the first one names the call.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from tests.sdk_streams.jsontext import Members, Raw
from tests.sdk_streams.upstream import Effect

Part = dict[str, Any]
"""One member of `delta.tool_calls`, or the call of a plain answer, which has no index."""


class Site(NamedTuple):
    """The call that an oddity is done to. `evil` is a function `{name, arguments}` that nobody may ever read."""

    rng: Random
    parts: list[Part]
    evil: dict[str, Any]
    members: dict[str, Any]  # the unknown members that must reach the agent


Oddity = Callable[[Site], Effect]


def no_index(site: Site) -> Effect:
    for part in site.parts:
        del part["index"]
    return Effect.KEEPS


def null_index(site: Site) -> Effect:
    for part in site.parts:
        part["index"] = None
    return Effect.KEEPS


def index_zero(site: Site) -> Effect:
    """Every call at index 0, each with an id of its own."""
    for part in site.parts:
        part["index"] = 0
    return Effect.KEEPS


def same_id(site: Site) -> Effect:
    """Every call with the same id, each at an index of its own."""
    site.parts[0]["id"] = "call_1"
    return Effect.KEEPS


def index_gap(site: Site) -> Effect:
    at = site.rng.choice((7, 99, 2**31, 10**12)) + site.parts[0]["index"]
    for part in site.parts:
        part["index"] = at
    return Effect.OPEN if at > 1000 else Effect.KEEPS


def strange_index(site: Site) -> Effect:
    """Floats, strings, booleans and numbers that no machine holds."""
    at: Any = site.rng.choice((Raw("0.0"), Raw("1e0"), "0", "1", True, -1, Raw("1" + "0" * 30), [0], {}))
    for part in site.parts:
        part["index"] = at
    return Effect.OPEN


def index_then_none(site: Site) -> Effect:
    for part in site.parts[1:]:
        del part["index"]
    return Effect.KEEPS


def id_repeated(site: Site) -> Effect:
    for part in site.parts:
        part["id"] = site.parts[0]["id"]
    return Effect.KEEPS


def blank_id_later(site: Site) -> Effect:
    for part in site.parts[1:]:
        part["id"] = site.rng.choice(("", None))
    return Effect.KEEPS


def no_id(site: Site) -> Effect:
    value = site.rng.choice(("", None, "absent"))
    for part in site.parts:
        if value == "absent":
            part.pop("id", None)
        else:
            part["id"] = value
    return Effect.KEEPS


def id_late(site: Site) -> Effect:
    if len(site.parts) > 1:
        site.parts[-1]["id"] = site.parts[0].pop("id")
    return Effect.KEEPS


def type_repeated(site: Site) -> Effect:
    for part in site.parts:
        part["type"] = "function"
    return Effect.KEEPS


def blank_type(site: Site) -> Effect:
    value = site.rng.choice(("", None))
    for part in site.parts:
        part["type"] = value
    return Effect.KEEPS


def no_type(site: Site) -> Effect:
    for part in site.parts:
        part.pop("type", None)
    return Effect.KEEPS


def wrong_type(site: Site) -> Effect:
    site.parts[0]["type"] = site.rng.choice(("custom", "Function", "mcp"))
    return Effect.DROPS if site.parts[0]["type"] == "custom" else Effect.OPEN


def name_repeated(site: Site) -> Effect:
    for part in site.parts:
        part["function"]["name"] = site.parts[0]["function"]["name"]
    return Effect.KEEPS


def blank_name_later(site: Site) -> Effect:
    for part in site.parts[1:]:
        part["function"]["name"] = site.rng.choice(("", None))
    return Effect.KEEPS


def name_late(site: Site) -> Effect:
    """The name comes after a first delta that has only the id."""
    first = site.parts[0]
    name = first["function"].pop("name")
    site.parts.insert(1, {"index": first["index"], "function": {"name": name}})
    return Effect.KEEPS


def name_split(site: Site) -> Effect:
    """Half of the name, then the other half: two different names."""
    first = site.parts[0]
    name = first["function"]["name"]
    at = site.rng.randrange(1, len(name))
    first["function"]["name"] = name[:at]
    site.parts.insert(1, {"index": first["index"], "function": {"name": name[at:]}})
    return Effect.DROPS


def other_name(site: Site) -> Effect:
    first = site.parts[0]
    site.parts.insert(
        site.rng.randrange(1, len(site.parts) + 1),
        {"index": first["index"], "function": {"name": site.evil["name"], "arguments": ""}},
    )
    return Effect.DROPS


def other_id(site: Site) -> Effect:
    """Another id, and no name with it."""
    first = site.parts[0]
    at = site.rng.randrange(1, len(site.parts) + 1)
    site.parts.insert(at, {"index": first["index"], "id": f"{first['id']}-other", "function": {"arguments": ""}})
    return Effect.DROPS


def other_type(site: Site) -> Effect:
    first = site.parts[0]
    site.parts.insert(
        site.rng.randrange(1, len(site.parts) + 1),
        {"index": first["index"], "type": "custom", "function": {"arguments": ""}},
    )
    return Effect.DROPS


def both_kinds(site: Site) -> Effect:
    custom = {"name": site.evil["name"], "input": site.evil["arguments"]}
    site.rng.choice(site.parts)["custom"] = custom
    return Effect.DROPS


def no_name(site: Site) -> Effect:
    value = site.rng.choice(("", None, "absent", " "))
    if value == "absent":
        del site.parts[0]["function"]["name"]
    else:
        site.parts[0]["function"]["name"] = value
    return Effect.DROPS


def bad_name(site: Site) -> Effect:
    name = site.parts[0]["function"]["name"]
    site.parts[0]["function"]["name"] = site.rng.choice(
        (
            f"{name} ",
            f"{name}\n",
            f"{name}\u200b",
            f"{name}é",
            f"{name}{'x' * 130}",
            f"{name}(",
            7,
            {"name": name},
            [name],
        )
    )
    return Effect.DROPS if isinstance(site.parts[0]["function"]["name"], str) else Effect.OPEN


def null_arguments(site: Site) -> Effect:
    """Null in the first delta, text in the others."""
    if len(site.parts) > 1 and site.parts[0]["function"].get("arguments") == "":
        site.parts[0]["function"]["arguments"] = None
    return Effect.KEEPS


def null_function_later(site: Site) -> Effect:
    first = site.parts[0]
    site.parts.append({"index": first["index"], "function": None})
    return Effect.OPEN


def bare_delta(site: Site) -> Effect:
    """A delta that adds nothing."""
    site.parts.insert(site.rng.randrange(1, len(site.parts) + 1), {"index": site.parts[0]["index"]})
    return Effect.KEEPS


def signature(site: Site) -> Effect:
    """Gemini's thought signature, without which the next turn fails."""
    site.members["extra_content"] = {"google": {"thought_signature": f"sig-{site.rng.randrange(10**9)}=="}}
    site.rng.choice(site.parts)["extra_content"] = site.members["extra_content"]
    return Effect.KEEPS


def unknown_members(site: Site) -> Effect:
    site.members["x_vendor"] = site.rng.choice((1, "é", {"a": [None]}))
    site.parts[0]["x_vendor"] = site.members["x_vendor"]
    site.parts[0]["function"]["x_inside"] = site.evil["arguments"]
    return Effect.KEEPS


def other_case_beside(site: Site) -> Effect:
    """The known keys once more in a spelling that Go and .NET readers take for them."""
    part = site.rng.choice(site.parts)
    key = site.rng.choice(("Function", "FUNCTION", "ﬀunction".replace("ﬀ", "f").capitalize(), "Custom", "Index", "ID"))
    part[key] = {"Custom": {"name": site.evil["name"], "input": site.evil["arguments"]}, "Index": 1, "ID": "z"}.get(
        key, site.evil
    )
    return Effect.KEEPS


def other_case_inside(site: Site) -> Effect:
    function = site.rng.choice(site.parts)["function"]
    function[site.rng.choice(("Name", "NAME"))] = site.evil["name"]
    function[site.rng.choice(("Arguments", "ARGUMENTS", "argument\u017f"))] = site.evil["arguments"]
    return Effect.KEEPS


def key_twice(site: Site) -> Effect:
    at = site.rng.randrange(len(site.parts))
    members: Any = Members([("function", site.evil), *site.parts[at].items()])
    site.parts[at] = members
    return Effect.OPEN


def name_twice(site: Site) -> Effect:
    function = site.parts[0]["function"]
    site.parts[0]["function"] = Members([("name", site.evil["name"]), *function.items()])
    return Effect.OPEN


def arguments_first(site: Site) -> Effect:
    """The call is named by its last delta."""
    first = site.parts.pop(0)
    site.parts.append(first)
    return Effect.OPEN


def index_moves(site: Site) -> Effect:
    """The arguments come at the next index."""
    for part in site.parts[1:]:
        part["index"] += 1
    return Effect.OPEN


def wrong_shape(site: Site) -> Effect:
    """Something that is of another type than it must be."""
    part, value = site.rng.choice(site.parts), site.rng.choice((7, "text", [], {}, True, [None], {"name": "Write"}))
    key = site.rng.choice(("function", "id", "type", "name", "arguments"))
    holder = part["function"] if key in ("name", "arguments") else part
    holder[key] = value
    return Effect.OPEN


def surrogates_split(site: Site) -> Effect:
    """Arguments cut in the middle of a character, as by a provider that counts in UTF-16."""
    text = "".join(part["function"].get("arguments") or "" for part in site.parts)
    units = text.encode("utf-16-le", "surrogatepass")
    cuts = sorted(site.rng.randrange(len(units) // 2 + 1) * 2 for _ in range(3))
    for part in site.parts:
        part["function"]["arguments"] = ""
    for start, end in zip([0, *cuts], [*cuts, len(units)], strict=True):
        piece = units[start:end].decode("utf-16-le", "surrogatepass")
        site.parts.append({"index": site.parts[0]["index"], "function": {"arguments": piece}})
    return Effect.KEEPS


# Done to every call of a choice and with no other, so that it is clear which call a delta belongs to.
LONELY: tuple[Oddity, ...] = (no_index, null_index, index_zero, same_id)
ODDITIES: tuple[Oddity, ...] = (
    *(index_gap, strange_index, index_then_none, id_repeated, blank_id_later, no_id, id_late, type_repeated),
    *(blank_type, no_type, wrong_type, name_repeated, blank_name_later, name_late, name_split, other_name, other_id),
    *(other_type, both_kinds, no_name, bad_name, null_arguments, null_function_later, bare_delta, signature),
    *(unknown_members, other_case_beside, other_case_inside, key_twice, name_twice, surrogates_split),
    *(arguments_first, index_moves, wrong_shape),
)


def compact(value: object) -> str:
    """An object in place of arguments is read as its compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
