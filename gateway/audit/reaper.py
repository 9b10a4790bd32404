"""Ends intents that nobody else will end: after a crash, at stop, and where a caller gave up waiting.

Each gets exactly one result; `unknown` where the side effect may have happened, and then the reserved cost
counts as spent, marked as estimated: never below the truth.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import msgspec

from gateway.actions import Reservation, Status, usd_text
from gateway.audit.leaf import CostPart, Entry, Leaf, RefsPart, ResultPart, decode_leaf
from gateway.audit.preparing import ENDED_FOR, RESULT
from gateway.errors import Refusal
from gateway.store.interface import Connection

# Given the replica whose spend it is, too; '' in the embedded gateway.
Settle = Callable[[Connection, Reservation, str], None]
# Told of an intent that ends unknown, in the transaction of its result; the case in which people find out, if any.
Lost = Callable[[Connection, Leaf], str | None]

_log = logging.getLogger("gateway.audit")

_decode_reservation = msgspec.json.Decoder(Reservation).decode


def ending(intent: Leaf, status: Status, code: str, cost: CostPart) -> Leaf:
    """A result record for `intent`, with what the intent knew of actor, action and model."""
    return Leaf(
        type=RESULT,
        tenant=intent.tenant,
        env=intent.env,
        actor=intent.actor,
        session=intent.session,
        trace=intent.trace,
        action=intent.action,
        model=intent.model,
        case=intent.case,
        cost=cost,
        result=ResultPart(status, code),
        refs=None if intent.refs is None else msgspec.structs.replace(intent.refs, intent=None),
        labels={"reaper": "yes"},
    )


def open_intents(connection: Connection) -> dict[str, str]:
    """Action id -> record id of every intent without a result."""
    return dict(connection.execute("SELECT action_id, leaf_id FROM open_intent ORDER BY leaf_id"))


def endings(
    connection: Connection,
    code: str,
    settle: Settle | None,
    lost: Lost | None = None,
    *,
    replica: str = "",
    foreign: bool = False,
    waiting: Callable[[str, bytes, bytes], bool] = lambda leaf_id, body, mac: False,
) -> Iterator[Entry]:
    """A result `unknown` for each open intent of a replica; `settle` persists the reserved spend in the same
    transaction. `foreign`: the intents are another replica's, and somebody else may be ending them too. `waiting` tells
    whether a replica wrote a record that has no place yet.

    An intent whose record is gone, or is not what a replica wrote, stays open: nothing is put on record by its word.
    """
    rows = connection.execute(
        "SELECT leaf.body, open_intent.reservation, open_intent.leaf_id, ingest.body, ingest.mac FROM open_intent"
        " LEFT JOIN leaf ON leaf.id = open_intent.leaf_id LEFT JOIN ingest ON ingest.id = open_intent.leaf_id"
        " WHERE open_intent.replica = ? ORDER BY open_intent.leaf_id",
        (replica,),
    ).fetchall()
    for placed, packed, leaf_id, queued, mac in rows:
        if placed is None and (queued is None or not waiting(str(leaf_id), bytes(queued), bytes(mac))):
            _log.error("intent_without_record: %s is open, and its record is gone or was changed", leaf_id)
            continue
        body = queued if placed is None else placed
        reservation = None if packed is None else _decode_reservation(packed)
        cost = CostPart("0" if reservation is None else usd_text(reservation.nanousd), estimated=True)
        intent = decode_leaf(body)
        entry = Entry(ending(intent, Status.UNKNOWN, code, cost))
        if foreign:
            entry.leaf.labels[ENDED_FOR] = replica
            entry.leaf.refs = entry.leaf.refs or RefsPart()
            entry.leaf.refs.intent = str(leaf_id)
        entry.also = _with(entry, intent, reservation, settle, lost, replica, foreign=foreign)
        yield entry


def _with(
    entry: Entry,
    intent: Leaf,
    reservation: Reservation | None,
    settle: Settle | None,
    lost: Lost | None,
    replica: str,
    *,
    foreign: bool,
) -> Callable[[Connection], None]:
    def also(connection: Connection) -> None:
        if foreign:
            assert intent.action is not None
            gone = connection.execute("DELETE FROM open_intent WHERE action_id = ?", (intent.action.id,))
            if gone.rowcount != 1:
                raise Refusal("conflict", f"The action {intent.action.id} was ended by somebody else.")
        if reservation is not None and settle is not None:
            settle(connection, reservation, replica)
        if lost is not None and intent.case is None:
            entry.leaf.case = lost(connection, intent)

    return also
