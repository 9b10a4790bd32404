# What holds where no rule spoke: the effect that a tool's manifest declares decides.
#
#   read          allowed
#   write, egress a person must approve, unless the grant says `unattended: [write]`
#   destructive   denied as a whole; a rule may allow it (also for tool.list, so that it is listed)
package gateway

import future.keywords.not

# The tool is asked to run, at the gateway (tool.call) or by a model's answer (tool.propose).
tool_runs if input.action.kind in {"tool.call", "tool.propose"}

otherwise_allow contains {"rule": "tool_listed", "reason": "The tool was given to this agent."} if {
	input.action.kind == "tool.list"
	input.target.kind == "mcp"
	input.target.effect in {"read", "write", "egress"}
}

otherwise_allow contains {"rule": "read_allowed", "reason": "The tool only reads."} if {
	tool_runs
	input.target.effect == "read"
	unattended
}

otherwise_allow contains {"rule": "unattended_allowed", "reason": "The grant lets the agent do this without a person."} if {
	tool_runs
	input.target.effect in {"write", "egress"}
	unattended
}

otherwise_escalate contains {"rule": "effect_needs_approval", "reason": reason} if {
	tool_runs
	input.target.effect in {"read", "write", "egress"}
	not unattended
	reason := sprintf(
		"%v (%v, risk %v) needs a person's approval. It passes without one where the grant says `unattended: [%v]`.",
		[input.target.id, input.target.effect, input.target.risk, input.target.effect],
	)
}

otherwise_deny contains {"rule": "destructive_denied", "reason": reason, "hidden": input.target.kind == "mcp"} if {
	input.target.type == "tool"
	input.target.effect == "destructive"
	reason := sprintf("%v destroys what it works on, and no rule allows that.", [input.target.id])
}

unattended if granted_unattended

# An agent's own tools need no grant as long as they only read and little can go wrong.
unattended if {
	input.target.kind == "client"
	input.target.effect == "read"
	input.target.risk in {"low", "medium"}
}
