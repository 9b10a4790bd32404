# Rules for every agent. Those of one tool stand in a file of their own, such as ledger/ledger.rego.
package gateway

import future.keywords.not

# ---------------------------------------------------------------- who asks

deny contains {"rule": "agent_not_active", "reason": "The agent is not active. A person must resume it."} if {
	not input.agent.status == "active"
}

deny contains {"rule": "wrong_environment", "reason": reason} if {
	not input.agent.env == input.environment
	reason := sprintf(
		"The agent %v is registered for %v, and this gateway serves %v. It passes once its `env` is %v, or through a gateway that serves %v.",
		[input.agent.id, input.agent.env, input.environment, input.environment, input.agent.env],
	)
}

# ---------------------------------------------------------------- models

allow contains {"rule": "model_granted", "reason": "The model was given to this agent."} if {
	input.action.kind == "model.invoke"
	model_granted
}

deny contains {"rule": "model_not_granted", "reason": reason, "hidden": true} if {
	input.action.kind == "model.invoke"
	not model_granted
	reason := sprintf(
		"The model %v was not given to the agent %v. It passes once policies/grants/data.yaml lists it.",
		[input.target.alias, input.agent.id],
	)
}

# ---------------------------------------------------------------- tools that the gateway executes

# Nobody registered it: no owner, no risk, no effect is known.
deny contains {"rule": "tool_not_declared", "reason": reason, "hidden": true} if {
	input.target.kind == "mcp"
	not input.target.declared
	reason := sprintf("No manifest declares %v. It passes once one in tools_registry/ does.", [input.target.id])
}

deny contains {"rule": "tool_not_granted", "reason": reason, "hidden": true} if {
	input.target.kind == "mcp"
	count(tool_granted) == 0
	reason := sprintf(
		"%v was not given to the agent %v. Rules look at it once policies/grants/data.yaml lists it at its risk, %v.",
		[input.target.id, input.agent.id, input.target.risk],
	)
}

# ---------------------------------------------------------------- tools that the agent executes itself

# One that no manifest declares is judged by the setting undeclared_client_tools: deny, escalate or observe.
undeclared if {
	input.action.kind == "tool.propose"
	input.target.kind == "client"
	not input.target.declared
}

deny contains {"rule": "undeclared_denied", "reason": reason} if {
	undeclared
	not input.settings.undeclared_client_tools in {"escalate", "observe"}
	reason := sprintf("No manifest declares the tool %v. It passes once one in tools_registry/ does.", [input.target.tool])
}

escalate contains {"rule": "undeclared_escalated", "reason": reason} if {
	undeclared
	input.settings.undeclared_client_tools == "escalate"
	reason := sprintf("No manifest declares the tool %v, so a person must approve it.", [input.target.tool])
}

allow contains {"rule": "undeclared_observed", "reason": reason} if {
	undeclared
	input.settings.undeclared_client_tools == "observe"
	reason := sprintf("No manifest declares the tool %v; undeclared tools are only watched here.", [input.target.tool])
}
