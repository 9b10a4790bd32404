# Claude Code's own tools, as far as their manifest alone does not decide (tools_registry/claude-code.yaml).
package gateway

import future.keywords.not

# A subagent's calls come through this gateway one by one, so starting one only reads. Started elsewhere (`remote`),
# they do not. What is not known to run here is taken to run elsewhere.
escalate contains {"rule": "claude_code_agent_elsewhere", "reason": reason, "note": note} if {
	input.action.kind == "tool.propose"
	input.target.id in {"claude-code__Agent", "claude-code__Task"}
	isolation := input.action.arguments.isolation
	not isolation in {"worktree"}
	reason := "A subagent that runs elsewhere needs a person's approval. It passes without `isolation`, or with `isolation` worktree."
	note := "What a subagent does elsewhere does not pass through this gateway, so it is neither decided nor recorded here."
}
