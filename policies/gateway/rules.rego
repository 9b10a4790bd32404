# Rules for every agent. Those for one tool go into a file of their own, such as ledger/ledger.rego.
package gateway

import future.keywords.not

# ---------------------------------------------------------------- who asks

deny contains {"rule": "agent_not_active", "reason": "This agent is suspended. A person must resume it."} if {
	not input.agent.status == "active"
}

deny contains {"rule": "wrong_environment", "reason": reason, "note": note} if {
	not input.agent.env == input.environment
	reason := sprintf(
		"The agent %v is registered for %v, and this gateway serves %v. Use a gateway that serves %v.",
		[input.agent.id, input.agent.env, input.environment, input.agent.env],
	)
	note := sprintf("To let it pass here, register the agent with `env: %v`.", [input.environment])
}

# ---------------------------------------------------------------- models

allow contains {"rule": "model_granted", "reason": "This agent has a grant for this model."} if {
	input.action.kind == "model.invoke"
	model_granted
}

deny contains {"rule": "model_not_granted", "reason": reason, "note": note, "hidden": true} if {
	input.action.kind == "model.invoke"
	not model_granted
	reason := sprintf("The agent %v has no grant for the model %v.", [input.agent.id, input.target.alias])
	note := "Add it to `models` of the agent, its team or its tier in policies/grants/data.yaml."
}

# ---------------------------------------------------------------- tools that the gateway executes

# Nobody registered it: no owner, no risk, no effect is known.
deny contains {"rule": "tool_not_declared", "reason": reason, "note": note, "hidden": true} if {
	input.target.kind == "mcp"
	not input.target.declared
	reason := sprintf("No manifest declares %v.", [input.target.id])
	note := sprintf("Declare it in the manifest of %v in tools_registry/.", [input.target.server])
}

deny contains {"rule": "tool_not_granted", "reason": reason, "note": note, "hidden": true} if {
	input.target.kind == "mcp"
	count(tool_granted) == 0
	reason := sprintf(
		"The agent %v has no grant for %v (risk %v).",
		[input.agent.id, input.target.id, input.target.risk],
	)
	note := sprintf(
		"Add a grant for the server %v with `max_risk: %v` or higher to the agent, its team or its tier in policies/grants/data.yaml.",
		[input.target.server, input.target.risk],
	)
}

# ---------------------------------------------------------------- tools that the agent executes itself

# One that no manifest declares is judged by the setting undeclared_client_tools: deny, escalate or observe.
undeclared if {
	input.action.kind == "tool.propose"
	input.target.kind == "client"
	not input.target.declared
}

deny contains {"rule": "undeclared_denied", "reason": reason, "note": undeclared_note} if {
	undeclared
	not input.settings.undeclared_client_tools in {"escalate", "observe"}
	reason := sprintf("No manifest declares the tool %v. It may not be used.", [input.target.tool])
}

escalate contains {"rule": "undeclared_escalated", "reason": reason, "note": undeclared_note} if {
	undeclared
	input.settings.undeclared_client_tools == "escalate"
	reason := sprintf("No manifest declares the tool %v. A person must approve it.", [input.target.tool])
}

allow contains {"rule": "undeclared_observed", "reason": reason, "note": undeclared_note} if {
	undeclared
	input.settings.undeclared_client_tools == "observe"
	reason := sprintf("No manifest declares the tool %v. Such tools are only recorded here.", [input.target.tool])
}

undeclared_note := "Declare the tool in a manifest of `kind: client` in tools_registry/; `gateway tools seen` and `gateway tools adopt` draft one. The setting undeclared_client_tools decides about the rest."
