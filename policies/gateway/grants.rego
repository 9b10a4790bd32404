# What this agent was granted, read from policies/grants/data.yaml: by its id, its team and its tier. All grants add
# up. A second agent is onboarded there (and by a tool manifest), not by new rules.
package gateway

granted contains data.grants.agents[input.agent.id]

granted contains data.grants.teams[input.agent.team]

granted contains data.grants.tiers[input.agent.tier]

# The model is granted.
model_granted if {
	some grant in granted
	some name in object.get(grant, "models", [])
	name in {input.target.alias, "*"}
}

# The grants for this tool's server that cover this tool at its risk.
tool_granted contains entry if {
	some grant in granted
	entry := grant.servers[input.target.server]
	input.target.tool in object.get(entry, "tools", [input.target.tool])
	risk_rank[input.target.risk] <= risk_rank[entry.max_risk]
}

# The tool's effect is granted without a person: `unattended: [read, write]`. Absent, it is [read].
granted_unattended if {
	some entry in tool_granted
	input.target.effect in object.get(entry, "unattended", ["read"])
}

risk_rank := {"low": 1, "medium": 2, "high": 3, "critical": 4}
