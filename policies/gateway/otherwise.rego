# What holds where no rule applies: the effect that a tool's manifest declares decides.
#
#   read          allowed
#   write, egress a person must approve, unless the grant says `unattended: [write]`
#   destructive   denied as a whole; a rule may allow it (also for tool.list, so that it is listed)
package gateway

import future.keywords.not

# The tool is about to run: asked of the gateway (tool.call) or proposed in a model's answer (tool.propose).
tool_runs if input.action.kind in {"tool.call", "tool.propose"}

otherwise_allow contains {"rule": "tool_listed", "reason": "This agent has a grant for the tool."} if {
	input.action.kind == "tool.list"
	input.target.kind == "mcp"
	input.target.effect in {"read", "write", "egress"}
}

otherwise_allow contains {"rule": "read_allowed", "reason": "The tool only reads."} if {
	tool_runs
	input.target.effect == "read"
	unattended
}

otherwise_allow contains {"rule": "unattended_allowed", "reason": "This agent may do this without approval."} if {
	tool_runs
	input.target.effect in {"write", "egress"}
	unattended
}

otherwise_escalate contains {"rule": "effect_needs_approval", "reason": reason, "note": note} if {
	tool_runs
	input.target.effect in {"read", "write", "egress"}
	not unattended
	reason := sprintf(
		"%v (%v, risk %v) needs a person's approval.",
		[input.target.id, input.target.effect, input.target.risk],
	)
	note := sprintf(
		"To let it pass without approval, add `unattended: [%v]` to the grant for %v in policies/grants/data.yaml, or write an `allow` rule.",
		[input.target.effect, input.target.server],
	)
}

otherwise_deny contains {"rule": "destructive_denied", "reason": reason, "note": note, "hidden": hidden} if {
	input.target.type == "tool"
	input.target.effect == "destructive"
	hidden := input.target.kind == "mcp"
	reason := sprintf("%v is destructive, and no rule allows that.", [input.target.id])
	note := "Only an `allow` rule lets a destructive tool run; a grant does not. To list it, allow tool.list too."
}

unattended if granted_unattended

# An agent's own tools need no grant as long as they only read and little can go wrong.
unattended if {
	input.target.kind == "client"
	input.target.effect == "read"
	input.target.risk in {"low", "medium"}
}
