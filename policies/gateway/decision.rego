# METADATA
# title: The entry point
# description: |
#   The gateway asks one question, data.gateway.decision, for every action and does what the answer says.
#   Rules live in other files of the same package (any file, any folder) and add what they find to one of three sets:
#
#     deny, escalate, allow contains {
#       "rule": "its_name",
#       "reason": "What the agent reads: what is wrong, and what would pass.",
#       "note": "Optional. What operators and reviewers read: how to change it. No agent sees it.",
#     }
#
#   An entry may also have "obligations" (a list) and, on a deny, "hidden": true, which means that the tool is
#   denied as a whole: it is not listed, and calling it answers "Unknown tool".
#
#   A deny wins over an escalate, an escalate over an allow. Where no rule applies, the three sets of otherwise.rego
#   decide by what the tool's manifest says. Where they are empty too, the answer is the default below: deny.
#
#   All files share the package, because the engine evaluates a rule of its own package only when it is needed,
#   but another package as a whole. So helpers carry the name of what their file is about (ledger_transfer).
package gateway

default decision := {
	"effect": "deny",
	"rules": ["no_rule_matched"],
	"reasons": ["No policy rule allows this."],
	"notes": ["Nothing in policies/ covers this kind of action. A rule that adds to `allow` would let it pass."],
	"obligations": [],
	"hidden": false,
}

decision := answer("deny", deny) if {
	count(deny) > 0
} else := answer("escalate", escalate) if {
	count(escalate) > 0
} else := answer("allow", allow) if {
	count(allow) > 0
} else := answer("deny", otherwise_deny) if {
	count(otherwise_deny) > 0
} else := answer("escalate", otherwise_escalate) if {
	count(otherwise_escalate) > 0
} else := answer("allow", otherwise_allow) if {
	count(otherwise_allow) > 0
}

answer(effect, entries) := {
	"effect": effect,
	"rules": [entry.rule | some entry in entries],
	"reasons": [entry.reason | some entry in entries],
	"notes": [entry.note | some entry in entries],
	"obligations": [obligation |
		some entry in entries
		some obligation in object.get(entry, "obligations", [])
	],
	"hidden": true in {object.get(entry, "hidden", false) | some entry in entries},
}
