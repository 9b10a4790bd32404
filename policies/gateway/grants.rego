# What this agent was given, read from policies/grants/data.yaml: by its id, its team and its tier. All that was
# given counts together. A second agent is onboarded there (and by a tool manifest), not by new rules.
package gateway

granted contains data.grants.agents[input.agent.id]

granted contains data.grants.teams[input.agent.team]

granted contains data.grants.tiers[input.agent.tier]

# The model was given.
model_granted if {
	some grant in granted
	some name in object.get(grant, "models", [])
	name in {input.target.alias, "*"}
}

# What was given of this tool's server, where it covers this tool at its risk.
tool_granted contains entry if {
	some grant in granted
	entry := grant.servers[input.target.server]
	input.target.tool in object.get(entry, "tools", [input.target.tool])
	risk_rank[input.target.risk] <= risk_rank[entry.max_risk]
}

# The tool's effect was given without a person: `unattended: [read, write]`. Reads are, where nothing is said.
granted_unattended if {
	some entry in tool_granted
	input.target.effect in object.get(entry, "unattended", ["read"])
}

risk_rank := {"low": 1, "medium": 2, "high": 3, "critical": 4}
