# Claude Code's own tools. Run with `gateway policy test`.
package claude_code_test

import data.gateway.decision

# An agent without any grant: what a client tool may do does not depend on policies/grants/data.yaml here.
grants := {"agents": {}}

proposed(tool, arguments) := {
	"environment": "dev",
	"agent": {"id": "coder", "team": "platform", "tier": "standard", "status": "active", "env": "dev"},
	"action": {"kind": "tool.propose", "arguments": arguments},
	"target": {
		"type": "tool",
		"id": concat("__", ["claude-code", tool]),
		"server": "claude-code",
		"tool": tool,
		"kind": "client",
		"risk": "medium",
		"effect": "read",
		"declared": true,
	},
	"settings": {"undeclared_client_tools": "deny"},
}

test_a_subagent_that_runs_here_passes if {
	decision.rules == ["read_allowed"] with input as proposed("Agent", {"prompt": "p"}) with data.grants as grants
	decision.rules == ["read_allowed"] with input as proposed("Task", {"prompt": "p", "isolation": "worktree"}) with data.grants as grants
}

test_a_subagent_that_runs_elsewhere_needs_a_person if {
	answer := decision with input as proposed("Agent", {"prompt": "p", "isolation": "remote"}) with data.grants as grants
	answer.effect == "escalate"
	answer.rules == ["claude_code_agent_elsewhere"]
	decision.effect == "escalate" with input as proposed("Task", {"prompt": "p", "isolation": "remote"}) with data.grants as grants
}

test_what_is_not_known_to_run_here_needs_a_person if {
	decision.effect == "escalate" with input as proposed("Agent", {"isolation": "somewhere"}) with data.grants as grants
	decision.effect == "escalate" with input as proposed("Agent", {"isolation": 1}) with data.grants as grants
	decision.effect == "escalate" with input as proposed("Agent", {"isolation": null}) with data.grants as grants
	decision.effect == "escalate" with input as proposed("Agent", {"isolation": false}) with data.grants as grants
}

test_other_tools_are_left_alone if {
	decision.rules == ["read_allowed"] with input as proposed("TodoWrite", {"isolation": "remote"}) with data.grants as grants
}
