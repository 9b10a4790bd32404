"""Ends intents that nobody else will end: after a crash, at stop, and where a caller gave up waiting.

Each gets exactly one result; `unknown` where the side effect may have happened, and then the reserved cost
counts as spent, marked as estimated: never below the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from gateway.actions import Reservation, Status, usd_text
from gateway.audit.chain import RESULT
from gateway.audit.leaf import CostPart, Entry, Leaf, ResultPart, decode_leaf
from gateway.store.interface import Connection

Settle = Callable[[Connection, Reservation], None]
# Told of an intent that ends unknown, in the transaction of its result; the case in which people find out, if any.
Lost = Callable[[Connection, Leaf], str | None]

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


def endings(connection: Connection, code: str, settle: Settle | None, lost: Lost | None = None) -> Iterator[Entry]:
    """A result `unknown` for each open intent; `settle` persists the reserved spend in the same transaction."""
    rows = connection.execute(
        "SELECT leaf.body, open_intent.reservation FROM open_intent JOIN leaf ON leaf.id = open_intent.leaf_id"
        " ORDER BY leaf.idx"
    ).fetchall()
    for body, packed in rows:
        reservation = None if packed is None else _decode_reservation(packed)
        cost = CostPart("0" if reservation is None else usd_text(reservation.nanousd), estimated=True)
        intent = decode_leaf(body)
        entry = Entry(ending(intent, Status.UNKNOWN, code, cost))
        entry.also = _with(entry, intent, reservation, settle, lost)
        yield entry


def _with(
    entry: Entry, intent: Leaf, reservation: Reservation | None, settle: Settle | None, lost: Lost | None
) -> Callable[[Connection], None]:
    def also(connection: Connection) -> None:
        if reservation is not None and settle is not None:
            settle(connection, reservation)
        if lost is not None and intent.case is None:
            entry.leaf.case = lost(connection, intent)

    return also
