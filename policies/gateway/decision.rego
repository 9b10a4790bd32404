# METADATA
# title: The entry point
# description: |
#   The gateway asks one question, data.gateway.decision, for every action and does what the answer says.
#   Rules do not stand here. They stand in the package gateway.rules (any file, any folder) and put what they
#   find into one of three sets:
#
#     deny, escalate, allow contains {"rule": "its_name", "reason": "What is so, and what would pass."}
#
#   An entry may also bear "obligations" (a list) and, on a deny, "hidden": true, which means that the tool is
#   denied as a whole: it is not listed, and calling it answers "Unknown tool".
#
#   A deny wins over an escalate, an escalate over an allow. Where no rule spoke, gateway.defaults decides by
#   what the tool's manifest says. Where that is silent too, the answer is the default below: deny.
package gateway

import data.gateway.defaults
import data.gateway.rules

default decision := {
	"effect": "deny",
	"rules": ["no_rule_matched"],
	"reasons": ["No policy rule allows this. It passes once a rule in policies/ allows it."],
	"obligations": [],
	"hidden": false,
}

decision := answer("deny", rules.deny) if {
	count(rules.deny) > 0
} else := answer("escalate", rules.escalate) if {
	count(rules.escalate) > 0
} else := answer("allow", rules.allow) if {
	count(rules.allow) > 0
} else := answer("deny", defaults.deny) if {
	count(defaults.deny) > 0
} else := answer("escalate", defaults.escalate) if {
	count(defaults.escalate) > 0
} else := answer("allow", defaults.allow) if {
	count(defaults.allow) > 0
}

answer(effect, entries) := {
	"effect": effect,
	"rules": [entry.rule | some entry in entries],
	"reasons": [entry.reason | some entry in entries],
	"obligations": [obligation |
		some entry in entries
		some obligation in object.get(entry, "obligations", [])
	],
	"hidden": true in {object.get(entry, "hidden", false) | some entry in entries},
}
