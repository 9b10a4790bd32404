"""Small policies that ask everything the dialect offers of the input, so that engines have something to differ in.

Each is a rule of its own folder beside the entry point below; what it computes stands in its reasons or obligations.
"""

from __future__ import annotations

ENTRY = """package gateway

default decision := {"effect": "deny", "rules": ["none"], "reasons": ["No rule."], "obligations": [], "hidden": false}

decision := {
	"effect": effect,
	"rules": [one.rule | some one in found],
	"reasons": [concat(": ", [one.rule, one.reason]) | some one in found],
	"obligations": [one.more | some one in found; demanded(one.more)],
	"hidden": false,
} if {
	count(found) > 0
}

effect := "escalate" if {
	some one in found
	one.asks
} else := "deny"

# An escalate may demand approvals only; what a deny demands is not followed, so there any value may stand.
demanded(more) if effect == "deny"

demanded(more) if more.approval
"""

# name, reason, what is demanded, whether people are asked, body
_RULES: list[tuple[str, str, str, str, str]] = [
    ("whole_amount", 'sprintf("%v", [x])', '{"cap": x}', "x > 10000",
     "x := input.action.arguments.amount_cents\nis_number(x)\nfloor(x) == x\nx < 1000000000000000\nx > -1000000000000000"),
    ("kind_of", "type_name(x)", '{"kind": type_name(x)}', "false", "x := input.action.arguments.amount_cents"),
    ("arithmetic", 'sprintf("%v %v %v", [x * 3 - 7, x % 7, abs(x)])', "{}", "false",
     "x := input.action.arguments.amount_cents\nis_number(x)\nfloor(x) == x\nx <= 1000000000000\nx >= -1000000000000"),
    ("text", "concat(\"|\", [trim_space(x), reverse_of(x), replace(x, \"a\", \"b\")])", "{}", "false",
     "x := input.action.arguments.to\nis_string(x)"),
    ("counted", 'sprintf("%v %v", [count(x), strings.count(x, "a")])', '{"length": count(x)}', "false",
     "x := input.action.arguments.to\nis_string(x)"),
    ("cut", "concat(\"|\", [substring(x, 0, 3), substring(x, 2, -1), trim(x, \"a-\"), trim_prefix(x, \"acme\")])", "{}",
     "false", "x := input.action.arguments.to\nis_string(x)\ncount(x) > 3"),
    ("parts", 'concat("+", split(x, "-"))', "{\"parts\": split(x, \".\")}", "false",
     "x := input.action.arguments.to\nis_string(x)"),
    ("prefix", '"p"', "{}", "false", "x := input.action.arguments.to\nis_string(x)\nstartswith(x, \"acme\")"),
    ("suffix", '"s"', "{}", "true", "x := input.action.arguments.to\nis_string(x)\nendswith(x, \"gmbh\")"),
    ("inside", 'sprintf("%v", [indexof(x, "m")])', "{}", "false",
     "x := input.action.arguments.to\nis_string(x)\ncontains(x, \"m\")"),
    ("expression", "sprintf(\"%v\", [regex.find_n(`[a-z]+`, x, -1)])", "{}", "false",
     "x := input.action.arguments.to\nis_string(x)\nregex.match(`^[A-Za-z0-9 .@:/-]+$`, x)"),
    ("pattern", '"g"', "{}", "false",
     "x := input.action.arguments.to\nis_string(x)\nglob.match(\"*-{gmbh,supplies}\", [\".\"], x)"),
    ("address", '"a"', "{}", "false",
     "x := input.action.arguments.to\nis_string(x)\nglob.match(\"*@example.com\", [], x)"),
    ("set", 'concat("+", union({s, {"z"}}))', "{\"all\": union({s, {\"z\"}})}", "false",
     "is_object(input.action.arguments)\ns := {k | some k, _ in input.action.arguments}"),
    ("values", 'concat("+", v)', "{\"values\": v}", "false",
     "is_object(input.action.arguments)\nv := sort([x | some x in input.action.arguments; is_string(x)])"),
    ("numbers", 'sprintf("%v %v %v", [sum(v), max(v), min(v)])', "{}", "false",
     "is_object(input.action.arguments)\nv := [x | some x in input.action.arguments; is_number(x); floor(x) == x; abs(x) < 1000000]\ncount(v) > 0"),
    ("fallback", '"f"', "{\"id\": x}", "false", "x := object.get(input.agent.owners, \"risk\", \"nobody\")\nis_object(input.agent.owners)"),
    ("all_text", '"all"', "{}", "false", "every x in input.action.arguments { is_string(x) }"),
    ("member", '"m"', "{}", "false", "input.action.arguments.to in {\"acme-gmbh\", \"\", null, true, 0}"),
    ("not_member", '"n"', "{}", "false", "not input.action.arguments.to in {\"acme-gmbh\", 1, false}"),
    ("absent", '"x"', "{}", "false", "not input.action.arguments.nothing"),
    ("same", '"="', "{}", "true", "input.action.arguments.to == input.claimed.purpose"),
    ("order", '"<"', "{}", "false", "input.action.arguments.to < input.action.arguments.amount_cents"),
    ("more_than", '">"', "{}", "true", "input.action.arguments.amount_cents > 10000"),
    ("votes", 'sprintf("%v of treasury", [count(who)])', "{\"people\": who}", "count(who) < 2",
     "who := {v.person | some v in input.approval.votes; \"treasury\" in v.groups}"),
    ("quorum", '"q"', '{"approval": {"quorum": [{"approve": 2, "deny": 1, "group": "treasury"}], "ttl_s": 600}}', "true",
     "input.target.risk in {\"high\", \"critical\"}\ninput.target.effect != \"read\""),
    ("joined", '"u"', '{"joined": object.union(input.target.arguments, {"z": 1})}', "false",
     "is_object(input.target.arguments)"),
    ("keys", '"k"', '{"facts": object.keys(input.session.facts)}', "false", "is_object(input.session.facts)"),
    ("day", 'sprintf("%v %v", [time.weekday(input.now_ns), time.date(input.now_ns)])', "{}", "false",
     "is_number(input.now_ns)\ninput.now_ns >= 0"),
    ("listed", 'sprintf("%v", [data.lists[input.action.arguments.to]])', "{}", "false", "data.lists[input.action.arguments.to]"),
    ("steps", 'sprintf("%v", [numbers.range(1, n)])', "{}", "false",
     "n := input.action.arguments.amount_cents\nis_number(n)\nfloor(n) == n\nn > 0\nn < 20"),
    ("nested", 'x', "{}", "false",
     "is_object(input.target.arguments)\nkinds := {one.kind | some one in input.target.arguments}\nsome x in kinds\nis_string(x)"),
    ("rounded", 'sprintf("%v %v %v", [round(x), ceil(x), floor(x)])', '{"whole": floor(x)}', "false",
     "x := input.action.arguments.amount_cents\nis_number(x)\nx < 1000000000000\nx > -1000000000000"),
    ("written", 'concat(" ", [format_int(x, 10), format_int(x, 16), format_int(x, 2)])', "{}", "false",
     "x := input.action.arguments.amount_cents\nis_number(x)\nfloor(x) == x\nx < 1000000000000\nx > -1000000000000"),
    ("arrays", '"a"', '{"all": array.concat(array.reverse(v), array.slice(v, 0, 1))}', "false",
     "is_object(input.action.arguments)\nv := sort([x | some x, _ in input.action.arguments])"),
    ("objects", '"o"', '{"left": object.remove(a, ["to"]), "kept": object.filter(a, ["to"])}', "false",
     "a := object.union_n([{\"z\": 1}, input.claimed])\nis_object(input.claimed)"),
    ("rewritten", 'concat("|", [regex.replace(x, "[a-c]+", "-"), concat(",", regex.split("[-.]", x))])', "{}", "false",
     "x := input.action.arguments.to\nis_string(x)"),
    ("trimmed", 'concat("|", [trim_left(x, "acm"), trim_right(x, "hb"), trim_suffix(x, "gmbh")])', "{}", "false",
     "x := input.action.arguments.to\nis_string(x)"),
    ("places", 'sprintf("%v", [indexof_n(x, "m")])', "{}", "false", "x := input.action.arguments.to\nis_string(x)"),
    ("any_prefix", '"p"', "{}", "false",
     "x := input.action.arguments.to\nis_string(x)\nstrings.any_prefix_match(x, [\"acme\", \"HTTPS\", \"x\"])"),
    ("any_suffix", '"s"', "{}", "false",
     "x := input.action.arguments.to\nis_string(x)\nstrings.any_suffix_match(x, {\"gmbh\", \"org\", \"x\"})"),
    ("hour", 'sprintf("%v %v", [time.clock(input.now_ns), time.add_date(input.now_ns, 0, 1, 1)])', "{}", "false",
     "is_number(input.now_ns)\ninput.now_ns >= 0\ninput.now_ns <= 9007199254740992 * 400"),
    ("product_of", 'sprintf("%v", [product([x, 3])])', "{}", "false",
     "x := input.action.arguments.amount_cents\nis_number(x)\nfloor(x) == x\nx < 1000000000000\nx > -1000000000000"),
    ("both_in", '"b"', '{"both": intersection({keys, {"to", "path", "amount_cents"}})}', "false",
     "is_object(input.action.arguments)\nkeys := {k | some k, _ in input.action.arguments}"),
]  # fmt: skip

HELPERS = """
reverse_of(x) := strings.reverse(x)
"""

DATA = 'lists:\n  acme-gmbh: 1\n  "": 2\n  "é": three\n  mallory: false\n'


def folders() -> dict[str, dict[str, str]]:
    """By name, the files of each folder: every rule alone, and all together."""
    rules = {rule[0]: _rule(*rule) for rule in _RULES}
    head = "package gateway\n\nimport future.keywords.not\n\n"
    common = {"decision.rego": ENTRY, "data.yaml": DATA, "helpers.rego": f"package gateway\n{HELPERS}"}
    third = len(rules) // 3 + 1
    names = list(rules)
    parts = [names[at : at + third] for at in range(0, len(names), third)]
    found = {f"probes-{at}": [rules[name] for name in part] for at, part in enumerate(parts)} | {
        "probes": [*rules.values()]
    }
    return {name: {**common, "probe.rego": head + "\n".join(texts)} for name, texts in found.items()}


def _rule(name: str, reason: str, more: str, asks: str, body: str) -> str:
    lines = "\n".join(f"\t{line}" for line in body.splitlines())
    return f'found contains {{"rule": "{name}", "reason": {reason}, "more": {more}, "asks": asks}} if {{\n{lines}\n\tasks := {asks}\n}}\n'
