"""Which built-in functions policies may call, and what to write instead of the others.

Allowed is what this engine and Open Policy Agent both have, answer alike, and compute from their arguments alone.
"""

from __future__ import annotations

_SHARED = """
abs ceil floor round numbers.range
count max min product sort sum
array.concat array.reverse array.slice
intersection union
object.filter object.get object.keys object.remove object.union object.union_n
concat contains endswith format_int indexof indexof_n replace split sprintf startswith
strings.any_prefix_match strings.any_suffix_match strings.count strings.reverse substring
trim trim_left trim_prefix trim_right trim_space trim_suffix
glob.match regex.find_n regex.is_valid regex.match regex.replace regex.split
is_array is_boolean is_null is_number is_object is_set is_string type_name
time.add_date time.clock time.date time.parse_rfc3339_ns time.weekday
"""

ALLOWED = frozenset(_SHARED.split())

_GATEWAY_FIRST = "Let the gateway verify or compute it and read the outcome from the input."

# Names, or prefixes that end with a dot, and what to do instead.
INSTEAD = {
    "http.send": "Policies ask no network; let the gateway put the fact into the input.",
    "net.": "Address functions differ between engines; compare a network class from the input.",
    "time.now_ns": "Use input.now_ns, so that a decision can be replayed.",
    "rand.": "Policies do not roll dice: the same input must get the same decision.",
    "uuid.": "Policies do not roll dice: the same input must get the same decision.",
    "opa.runtime": "Read what you need from the input: environment, settings, agent.",
    "to_number": "Use is_number and compare the number itself; text is not a number.",
    "object.subset": "It crashes the engine on an empty array; use `every` with `in`.",
    "lower": "Engines fold some letters differently; list the spellings, or match with a class such as [Aa].",
    "upper": "Engines fold some letters differently; list the spellings, or match with a class such as [Aa].",
    "walk": "Name the path you mean.",
    "len": "Use count.",
    "length": "Use count.",
    "size": "Use count.",
    "join": "Use concat.",
    "print": "Remove it, or keep it to *_test.rego files; `gateway policy explain` shows what fired.",
    "trace": "Remove it; `gateway policy explain` shows what fired.",
    "io.jwt.": _GATEWAY_FIRST,
    "crypto.": _GATEWAY_FIRST,
    "rego.": _GATEWAY_FIRST,
    "graphql.": _GATEWAY_FIRST,
    "json.": "Compare the values themselves; text forms of numbers differ between engines.",
    "yaml.": "Keep data in data.yaml; text forms differ between engines.",
    "units.": "Use whole numbers of the smallest unit.",
}


def instead_of(name: str) -> str | None:
    """What to write instead of a known but refused built-in; None if the name means nothing to us."""
    for known, mend in INSTEAD.items():
        if name == known or (known.endswith(".") and name.startswith(known)):
            return mend
    return None
