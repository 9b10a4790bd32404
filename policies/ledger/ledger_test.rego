# The quickstart's ledger. Run with `gateway policy test`.
package ledger_test

import data.gateway.decision

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

test_a_small_transfer_to_a_listed_payee_passes if {
	answer := decision with input as transfer({"to": "acme-gmbh", "amount_cents": 10000, "reference": "r"})
	answer.effect == "allow"
	answer.rules == ["ledger_small_transfer"]
}

test_a_large_transfer_needs_a_person if {
	answer := decision with input as transfer({"to": "acme-gmbh", "amount_cents": 10001, "reference": "r"})
	answer.effect == "escalate"
	answer.rules == ["ledger_large_transfer"]
}

test_anybody_else_is_denied_and_told_who_passes if {
	answer := decision with input as transfer({"to": "mallory", "amount_cents": 1, "reference": "r"})
	answer.rules == ["ledger_payee_not_listed"]
	contains(answer.reasons[0], "acme-gmbh, city-utilities, north-supplies")
}

test_a_large_transfer_to_anybody_else_is_denied_too if {
	answer := decision with input as transfer({"to": "mallory", "amount_cents": 10001, "reference": "r"})
	answer.rules == ["ledger_payee_not_listed"]
}

test_what_is_not_an_amount_is_denied if {
	every amount in [0, -1, "100", true, null, [100], {}] {
		answer := decision with input as transfer({"to": "acme-gmbh", "amount_cents": amount})
		answer.rules == ["ledger_amount_invalid"]
	}
}

test_no_arguments_are_denied_for_both if {
	answer := decision with input as transfer({})
	answer.rules == ["ledger_amount_invalid", "ledger_payee_not_listed"]
}

test_a_proposed_transfer_goes_by_the_same_rules if {
	small := decision with input as transfer({"to": "acme-gmbh", "amount_cents": 5})
		with input.action.kind as "tool.propose"
	small.rules == ["ledger_small_transfer"]
	denied := decision with input as transfer({"to": "mallory", "amount_cents": 5})
		with input.action.kind as "tool.propose"
	denied.rules == ["ledger_payee_not_listed"]
}

test_transfer_is_listed if {
	answer := decision with input as transfer({}) with input.action.kind as "tool.list"
	answer.rules == ["tool_listed"]
}

test_close_account_does_not_exist_for_agents if {
	every kind in ["tool.call", "tool.propose", "tool.list"] {
		answer := decision with input as transfer({})
			with input.action.kind as kind
			with input.target.id as "ledger__close_account"
		answer.effect == "deny"
		answer.hidden == true
		answer.rules == ["ledger_close_account"]
	}
}
