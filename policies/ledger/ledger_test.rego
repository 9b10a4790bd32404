# The quickstart's ledger. Run with `gateway policy test`. The tests bring grants, payees and a limit of their own.
package ledger_test

import data.gateway.decision

grants := {"agents": {"demo-agent": {"servers": {"ledger": {"max_risk": "critical"}}}}}

rules := {
	"payees": {"acme-gmbh": {}, "city-utilities": {}, "north-supplies": {}},
	"unattended_limit_cents": 10000,
}

# The decision on a call with these arguments.
decided(arguments) := asked(transfer(arguments))

asked(document) := answer if {
	answer := decision with input as document with data.grants as grants with data.ledger as rules
}

transfer(arguments) := {
	"environment": "dev",
	"agent": {"id": "demo-agent", "team": "finance", "tier": "standard", "status": "active", "env": "dev"},
	"action": {"kind": "tool.call", "arguments": arguments},
	"target": {
		"type": "tool",
		"id": "ledger__transfer",
		"server": "ledger",
		"tool": "transfer",
		"kind": "mcp",
		"risk": "high",
		"effect": "write",
		"declared": true,
	},
	"settings": {"undeclared_client_tools": "deny"},
}

of_kind(kind, document) := object.union(document, {"action": {"kind": kind}})

test_a_small_transfer_to_a_listed_payee_passes if {
	answer := decided({"to": "acme-gmbh", "amount_cents": 10000, "reference": "r"})
	answer.effect == "allow"
	answer.rules == ["ledger_small_transfer"]
}

test_a_large_transfer_needs_a_person if {
	answer := decided({"to": "acme-gmbh", "amount_cents": 10001, "reference": "r"})
	answer.effect == "escalate"
	answer.rules == ["ledger_large_transfer"]
}

test_anybody_else_is_denied_and_the_reason_says_who_passes if {
	answer := decided({"to": "mallory", "amount_cents": 1, "reference": "r"})
	answer.rules == ["ledger_payee_not_listed"]
	contains(answer.reasons[0], "acme-gmbh, city-utilities, north-supplies")
}

test_a_large_transfer_to_anybody_else_is_denied_too if {
	answer := decided({"to": "mallory", "amount_cents": 10001, "reference": "r"})
	answer.rules == ["ledger_payee_not_listed"]
}

test_what_is_not_an_amount_is_denied if {
	every amount in [0, -1, "100", true, null, [100], {}] {
		answer := decided({"to": "acme-gmbh", "amount_cents": amount})
		answer.rules == ["ledger_amount_invalid"]
	}
}

test_no_arguments_are_denied_for_both if {
	answer := decided({})
	{rule | some rule in answer.rules} == {"ledger_amount_invalid", "ledger_payee_not_listed"}
}

test_a_proposed_transfer_goes_by_the_same_rules if {
	small := asked(of_kind("tool.propose", transfer({"to": "acme-gmbh", "amount_cents": 5})))
	small.rules == ["ledger_small_transfer"]
	denied := asked(of_kind("tool.propose", transfer({"to": "mallory", "amount_cents": 5})))
	denied.rules == ["ledger_payee_not_listed"]
}

test_transfer_is_listed if {
	answer := asked(of_kind("tool.list", transfer({})))
	answer.rules == ["tool_listed"]
}

test_close_account_does_not_exist_for_agents if {
	every kind in ["tool.call", "tool.propose", "tool.list"] {
		closing := object.union(transfer({}), {"target": {"id": "ledger__close_account"}})
		answer := asked(of_kind(kind, closing))
		answer.effect == "deny"
		answer.hidden == true
		answer.rules == ["ledger_close_account"]
	}
}
