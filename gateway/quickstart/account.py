"""The account of the quickstart's ledger and its tools' definitions. Every transfer that truly happened is a row."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import mcp.types as types

OPENING_BALANCE_CENTS = 1_000_000
PAYEES = {"acme-gmbh": "Acme GmbH", "city-utilities": "City Utilities", "north-supplies": "North Supplies"}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS account (
    id INTEGER PRIMARY KEY CHECK (id = 1), balance_cents INTEGER NOT NULL, closed_ns INTEGER
);
CREATE TABLE IF NOT EXISTS payees (id TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS transfers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, payee TEXT NOT NULL, amount_cents INTEGER NOT NULL,
    reference TEXT NOT NULL, executed_ns INTEGER NOT NULL
);
"""


class Declined(Exception):  # noqa: N818 - the bank's answer, not a fault of it
    """The bank says no; the message is for the caller."""


class Ledger:
    """The account. Every change is one durable transaction."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA busy_timeout = 5000")
        self._db.executescript(_SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO account VALUES (1, ?, NULL)", (OPENING_BALANCE_CENTS,))
        self._db.executemany("INSERT OR IGNORE INTO payees VALUES (?, ?)", PAYEES.items())

    def get_balance(self) -> dict[str, Any]:
        """The balance in cents."""
        balance, _ = self._account()
        return {"balance_cents": balance}

    def list_payees(self) -> dict[str, Any]:
        """The payees on file."""
        rows = self._db.execute("SELECT id, name FROM payees ORDER BY id")
        return {"payees": [{"id": payee, "name": name} for payee, name in rows]}

    def transfer(self, to: Any = None, amount_cents: Any = None, reference: Any = "") -> dict[str, Any]:
        """Pay `amount_cents` to `to`, whoever that is. Raises Declined."""
        if not isinstance(to, str) or not to.strip() or len(to) > 128:
            raise Declined("The argument 'to' must be the id of a payee.")
        if isinstance(amount_cents, bool) or not isinstance(amount_cents, int) or amount_cents <= 0:
            raise Declined("The argument 'amount_cents' must be a positive whole number.")
        if not isinstance(reference, str) or len(reference) > 256:
            raise Declined("The argument 'reference' must be a text of at most 256 characters.")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            balance, closed = self._account()
            if closed:
                raise Declined("The account is closed.")
            if amount_cents > balance:
                raise Declined(f"The balance of {balance} cents does not cover {amount_cents} cents.")
            row = (to, amount_cents, reference, time.time_ns())
            found = self._db.execute(
                "INSERT INTO transfers (payee, amount_cents, reference, executed_ns) VALUES (?, ?, ?, ?)", row
            )
            self._db.execute("UPDATE account SET balance_cents = balance_cents - ?", (amount_cents,))
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return {"transfer_id": f"tr-{found.lastrowid}", "balance_cents": balance - amount_cents}

    def close_account(self) -> dict[str, Any]:
        """Close the account for good."""
        self._db.execute("UPDATE account SET closed_ns = coalesce(closed_ns, ?)", (time.time_ns(),))
        return {"closed": True}

    def close(self) -> None:
        self._db.close()

    def _account(self) -> tuple[int, bool]:
        balance, closed_ns = self._db.execute("SELECT balance_cents, closed_ns FROM account").fetchone()
        return balance, closed_ns is not None


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_CENTS = {"type": "integer"}
_PAYEE = _object({"id": {"type": "string"}, "name": {"type": "string"}}, ["id", "name"])
_TRANSFER = {
    "to": {"type": "string", "minLength": 1, "maxLength": 128, "description": "Id of the payee."},
    "amount_cents": {"type": "integer", "minimum": 1, "description": "Amount in US cents."},
    "reference": {"type": "string", "maxLength": 256, "description": "What the payment is for."},
}


def _tool(
    name: str, description: str, arguments: dict[str, Any], output: dict[str, Any], *, read_only: bool
) -> types.Tool:
    return types.Tool(
        name=name,
        description=description,
        input_schema=arguments,
        output_schema=output,
        annotations=types.ToolAnnotations(read_only_hint=read_only, open_world_hint=False),
    )


TOOLS = {
    tool.name: tool
    for tool in (
        _tool(
            "get_balance",
            "Read the account's balance.",
            _object({}, []),
            _object({"balance_cents": _CENTS}, ["balance_cents"]),
            read_only=True,
        ),
        _tool(
            "list_payees",
            "List the payees on file.",
            _object({}, []),
            _object({"payees": {"type": "array", "items": _PAYEE}}, ["payees"]),
            read_only=True,
        ),
        _tool(
            "transfer",
            "Transfer money to a payee.",
            _object(_TRANSFER, ["to", "amount_cents"]),
            _object({"transfer_id": {"type": "string"}, "balance_cents": _CENTS}, ["transfer_id", "balance_cents"]),
            read_only=False,
        ),
        _tool(
            "close_account",
            "Close the account for good.",
            _object({}, []),
            _object({"closed": {"type": "boolean"}}, ["closed"]),
            read_only=False,
        ),
    )
}
