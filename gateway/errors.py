"""One exception type for everything that is refused, with a documented table of codes. Doors render it.

A `Refusal` says in one sentence what happened, why, and what to do. It never carries a secret, a traceback or
an upstream's raw error text.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway import known_secrets


class Code(NamedTuple):
    """A row of the table: HTTP status, whether a client may simply try again, and what it means."""

    http_status: int
    retry: bool
    meaning: str


CODES: dict[str, Code] = {
    "unauthenticated": Code(401, False, "No credential, or one that is not known."),
    "agent_suspended": Code(403, False, "The agent was suspended by a person."),
    "denied_by_policy": Code(403, False, "A policy rule denies it; rules and reasons are given."),
    "approval_required": Code(409, True, "It waits for a person; the same request again attaches to the same case."),
    "approval_denied": Code(403, False, "A person denied it; the guidance says what to do instead."),
    "approval_expired": Code(403, False, "Nobody approved it in time."),
    "outcome_unknown": Code(409, False, "It may have been done; a person must find out before it is asked for again."),
    "stale": Code(409, False, "What was voted on is not what is shown now; look again."),
    "decided": Code(409, False, "The case was decided already, or has ended."),
    "separation_of_duties": Code(403, False, "The person owns the agent or acts through it, so others must decide."),
    "budget_exhausted": Code(402, False, "A token or money budget would be overspent."),
    "rate_limited": Code(429, True, "Too many requests, tokens or calls at once."),
    "model_not_found": Code(404, False, "No such model, or not for this agent."),
    "unknown_tool": Code(404, False, "No such tool, or not for this agent."),
    "not_found": Code(404, False, "Nothing is served under this path."),
    "not_governed": Code(404, False, "The protocol has this method, but the gateway does not govern it yet."),
    "method_not_allowed": Code(405, False, "The path exists, but not with this HTTP method."),
    "forbidden": Code(403, False, "The person or key has not the role this needs."),
    "wrong_host": Code(421, False, "The Host header names another server than this gateway."),
    "conflict": Code(409, False, "It exists already, or is in a state that does not allow this."),
    "too_large": Code(413, False, "The body is larger than the gateway takes."),
    "malformed": Code(400, False, "The request cannot be read as what the door speaks."),
    "invalid_configuration": Code(422, False, "The configuration has problems; the old one stays in force."),
    "audit_unavailable": Code(503, True, "The audit log cannot take the record, so nothing may happen."),
    "store_unavailable": Code(503, True, "The database cannot be reached."),
    "policy_unavailable": Code(503, True, "No policy can be asked, so nothing is allowed."),
    "client_left": Code(499, False, "The client closed the connection first; it stands in records only."),
    "stopping": Code(503, True, "The gateway is shutting down."),
    "upstream_failed": Code(502, True, "The model provider or tool server failed."),
    "upstream_timeout": Code(504, True, "The model provider or tool server did not answer in time."),
    "internal": Code(500, False, "A fault of the gateway; its log has the request id."),
}


UNTOLD = frozenset({"unknown_tool", "model_not_found"})
"""Of what is refused so, an agent learns neither rule nor reason: what is hidden looks like what does not exist."""
NO_SUCH_MODEL = "There is no model of this name, or not for this agent; ask /v1/models for those there are."


class Refusal(Exception):  # noqa: N818 - a refusal is an answer of the product, not a fault in it
    """Raised wherever an action may not go on; `code` is a key of `CODES`. `notes` are for the record and never leave
    through a door."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        rules: tuple[str, ...] = (),
        reasons: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
        retry_after_s: int | None = None,
        http_status: int | None = None,
        detail: dict[str, str] | None = None,
    ) -> None:
        message = known_secrets.redact(message)
        super().__init__(message)
        self.code = code
        self.message = message
        self.rules = rules
        self.reasons = reasons
        self.notes = tuple(map(known_secrets.redact, notes))
        self.retry_after_s = retry_after_s
        self.http_status = http_status or CODES[code].http_status
        self.detail = {name: known_secrets.redact(value) for name, value in detail.items()} if detail else {}

    @property
    def retry(self) -> bool:
        """Whether a client may send the same request again without a change."""
        passing = self.http_status >= 500 or self.http_status in (408, 409, 429)  # an upstream's 400 stays wrong
        return CODES[self.code].retry and passing
