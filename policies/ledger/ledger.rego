# The quickstart's ledger. Copy this file for a tool of your own: name the tool, name what makes a call bad, and
# say in each reason what would pass, since the model reads it and tries again. What people should know instead (how to
# change the rule, who decides) goes into `note`. Neither may need what can be missing (an argument): a rule whose
# reason or note cannot be made does not fire.
package gateway

import future.keywords.not

# ---------------------------------------------------------------- transfers

# Rules about arguments hold for calls and for proposed calls, not for listing the tool: a list has no arguments.
ledger_transfer if {
	input.target.id == "ledger__transfer"
	input.action.kind in {"tool.call", "tool.propose"}
}

# Money is a whole number of the smallest unit. Everything else (text, fractions, nothing at all) is not an amount.
ledger_amount_valid if {
	amount := input.action.arguments.amount_cents
	is_number(amount)
	floor(amount) == amount
	amount > 0
}

# Payees are ids, compared exactly: neither look-alike letters nor spaces nor another case pass.
ledger_payee_listed if {
	data.ledger.payees[input.action.arguments.to]
}

ledger_within_limit if {
	input.action.arguments.amount_cents <= data.ledger.unattended_limit_cents
}

allow contains {"rule": "ledger_small_transfer", "reason": "A small amount to a listed payee."} if {
	ledger_transfer
	ledger_amount_valid
	ledger_payee_listed
	ledger_within_limit
}

escalate contains {"rule": "ledger_large_transfer", "reason": reason, "note": note} if {
	ledger_transfer
	ledger_amount_valid
	ledger_payee_listed
	not ledger_within_limit
	reason := sprintf(
		"Transfers above %v cents need a person's approval. Up to that amount they pass without one.",
		[data.ledger.unattended_limit_cents],
	)
	note := "The limit is `unattended_limit_cents` in policies/ledger/data.yaml."
}

deny contains {"rule": "ledger_payee_not_listed", "reason": reason, "note": note} if {
	ledger_transfer
	not ledger_payee_listed
	reason := sprintf(
		"`to` is not the id of a listed payee. These pass: %v. Call list_payees to see them.",
		[concat(", ", [id | some id, _ in data.ledger.payees])],
	)
	note := "Payees are listed in policies/ledger/data.yaml."
}

deny contains {"rule": "ledger_amount_invalid", "reason": reason} if {
	ledger_transfer
	not ledger_amount_valid
	reason := "`amount_cents` must be a whole number of cents above 0, such as 1250 for 12.50 USD."
}

# ---------------------------------------------------------------- never

# No condition on the kind of action, so it is not listed either, and calling it answers "Unknown tool".
deny contains {"rule": "ledger_close_account", "reason": reason, "hidden": true} if {
	input.target.id == "ledger__close_account"
	reason := "Agents do not close accounts. A person does it at the bank."
}
