# Rules for every agent. Run with `gateway policy test`. The tests bring grants of their own, so that a change of
# policies/grants/data.yaml breaks none of them.
package gateway_test

import data.gateway.decision
import future.keywords.not

# The smallest input that each rule looks at. Tests change one thing at a time.
agent := {"id": "demo-agent", "team": "finance", "tier": "standard", "status": "active", "env": "dev"}

settings := {"undeclared_client_tools": "deny"}

grants := {"agents": {"demo-agent": {
	"models": ["demo"],
	"servers": {"git": {"max_risk": "high"}},
}}}

asked(kind, target) := {
	"environment": "dev",
	"agent": agent,
	"action": {"kind": kind, "arguments": {}},
	"target": target,
	"settings": settings,
}

tool(server, name, risk, effect) := {
	"type": "tool",
	"id": concat("__", [server, name]),
	"server": server,
	"tool": name,
	"kind": "mcp",
	"risk": risk,
	"effect": effect,
	"declared": true,
}

client(name, risk, effect, declared) := object.union(
	tool("client", name, risk, effect),
	{"kind": "client", "declared": declared},
)

demo := {"type": "model", "id": "demo", "alias": "demo"}

test_a_granted_model_is_allowed if {
	decision.rules == ["model_granted"] with input as asked("model.invoke", demo) with data.grants as grants
}

test_another_model_is_denied_and_hidden if {
	answer := decision with input as asked("model.invoke", {"type": "model", "id": "big", "alias": "big"}) with data.grants as grants
	answer.effect == "deny"
	answer.hidden == true
	answer.rules == ["model_not_granted"]
}

test_a_suspended_agent_is_denied if {
	answer := decision with input as asked("model.invoke", demo) with data.grants as grants with input.agent.status as "suspended"
	answer.rules == ["agent_not_active"]
}

test_an_agent_of_another_environment_is_denied if {
	answer := decision with input as asked("model.invoke", demo) with data.grants as grants with input.environment as "prod"
	answer.rules == ["wrong_environment"]
	contains(answer.reasons[0], "Use a gateway that serves dev.")
	contains(answer.notes[0], "`env: prod`")
}

test_reads_are_allowed if {
	decision.rules == ["read_allowed"] with input as asked("tool.call", tool("git", "git_status", "low", "read")) with data.grants as grants
}

test_writes_need_a_person if {
	answer := decision with input as asked("tool.call", tool("git", "git_commit", "medium", "write")) with data.grants as grants
	answer.effect == "escalate"
	answer.rules == ["effect_needs_approval"]
	contains(answer.notes[0], "`unattended: [write]`")
}

test_agents_do_not_read_how_to_change_the_grants if {
	writing := tool("git", "git_commit", "medium", "write")
	every target in [writing, tool("crm", "send", "low", "egress"), client("Bash", "critical", "destructive", false)] {
		answer := decision with input as asked("tool.propose", target) with data.grants as grants
		count(answer.notes) > 0
		every text in ["unattended", "data.yaml", "tools_registry", "max_risk"] {
			not contains(concat(" ", answer.reasons), text)
		}
	}
}

test_writes_pass_where_the_grant_says_unattended if {
	answer := decision with input as asked("tool.call", tool("git", "git_commit", "medium", "write"))
		with data.grants as {"agents": {"demo-agent": {"servers": {"git": {"max_risk": "high", "unattended": ["write"]}}}}}
	answer.rules == ["unattended_allowed"]
}

test_destructive_tools_are_denied_as_a_whole if {
	answer := decision with input as asked("tool.list", tool("git", "git_destroy", "high", "destructive")) with data.grants as grants
	answer.effect == "deny"
	answer.hidden == true
}

test_a_tool_above_the_granted_risk_does_not_exist if {
	answer := decision with input as asked("tool.list", tool("git", "git_status", "critical", "read")) with data.grants as grants
	answer.rules == ["tool_not_granted"]
	answer.hidden == true
}

test_a_tool_that_the_grant_does_not_name_does_not_exist if {
	answer := decision with input as asked("tool.call", tool("git", "git_log", "low", "read"))
		with data.grants as {"agents": {"demo-agent": {"servers": {"git": {"max_risk": "high", "tools": ["git_status"]}}}}}
	answer.rules == ["tool_not_granted"]
}

test_another_agent_has_no_tools if {
	answer := decision with input as asked("tool.call", tool("git", "git_status", "low", "read")) with data.grants as grants
		with input.agent.id as "somebody-else"
	answer.rules == ["tool_not_granted"]
}

test_a_tier_shares_its_grants if {
	answer := decision with input as asked("model.invoke", demo)
		with input.agent.id as "somebody-else"
		with data.grants as {"tiers": {"standard": {"models": ["*"]}}}
	answer.rules == ["model_granted"]
}

test_a_team_shares_its_grants if {
	answer := decision with input as asked("tool.call", tool("git", "git_status", "low", "read"))
		with input.agent.id as "somebody-else"
		with data.grants as {"teams": {"finance": {"servers": {"git": {"max_risk": "low"}}}}}
	answer.rules == ["read_allowed"]
}

test_granted_tools_are_listed if {
	decision.rules == ["tool_listed"] with input as asked("tool.list", tool("git", "git_commit", "medium", "write")) with data.grants as grants
}

test_an_undeclared_tool_of_a_server_does_not_exist if {
	answer := decision with input as asked("tool.call", tool("git", "git_status", "low", "read")) with data.grants as grants
		with input.target.declared as false
	answer.rules == ["tool_not_declared"]
	answer.hidden == true
}

test_declared_client_tools_go_by_effect if {
	decision.effect == "allow" with input as asked("tool.propose", client("Read", "low", "read", true)) with data.grants as grants
	decision.effect == "escalate" with input as asked("tool.propose", client("Read", "high", "read", true)) with data.grants as grants
	decision.effect == "escalate" with input as asked("tool.propose", client("Edit", "low", "write", true)) with data.grants as grants
	decision.effect == "deny" with input as asked("tool.propose", client("Wipe", "low", "destructive", true)) with data.grants as grants
}

test_undeclared_client_tools_go_by_the_setting if {
	undeclared := asked("tool.propose", client("Bash", "critical", "destructive", false))
	denied := decision with input as undeclared with data.grants as grants
	denied.rules == ["undeclared_denied"]
	escalated := decision with input as undeclared with data.grants as grants with input.settings.undeclared_client_tools as "escalate"
	escalated.rules == ["undeclared_escalated"]
	observed := decision with input as undeclared with data.grants as grants with input.settings.undeclared_client_tools as "observe"
	observed.rules == ["undeclared_observed"]
	other := decision with input as undeclared with data.grants as grants with input.settings.undeclared_client_tools as "whatever"
	other.effect == "deny"
}

test_a_kind_that_no_rule_knows_is_denied if {
	decision.effect == "deny" with input as asked("resource.read", tool("git", "git_status", "low", "read")) with data.grants as grants
}

test_nothing_at_all_is_denied if {
	decision.effect == "deny" with input as {} with data.grants as grants
}
