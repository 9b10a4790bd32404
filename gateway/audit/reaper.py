"""Ends intents that nobody else will end: after a crash, at stop, and where a caller gave up waiting.

Each gets exactly one result; `unknown` where the side effect may have happened, and then the reserved cost
counts as spent, marked as estimated: never below the truth.

Which intents are open, whose they are and what they reserved is what the log says. The table `open_intent` is only
compared with it: a row that somebody deleted, added or changed ends no intent, hides none and settles nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

import msgspec

from gateway.actions import NANOUSD_PER_USD, Reservation, Status, usd_text
from gateway.audit.leaf import CostPart, Entry, Leaf, RefsPart, ResultPart, decode_leaf
from gateway.audit.preparing import ENDED_FOR, RESULT
from gateway.errors import Refusal
from gateway.store.interface import Connection
from gateway.store.macs import RowMacs

# Given the replica whose spend it is, too; '' in the embedded gateway.
Settle = Callable[[Connection, Reservation, str], None]
# Told of an intent that ends unknown, in the transaction of its result; the case in which people find out, if any.
Lost = Callable[[Connection, Leaf], str | None]
# The log's intents without a result, by record ID: who performs each, '' in the embedded gateway.
OnRecord = Callable[[Connection], Mapping[str, str]]
Waiting = Callable[[str, bytes, bytes], bool]

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


class Open(NamedTuple):
    """An intent without a result, as its record has it."""

    record_id: str
    intent: Leaf
    reservation: Reservation | None


def _never_waits(_record_id: str, _body: bytes, _mac: bytes) -> bool:
    return False


def open_intents(
    connection: Connection, on_record: OnRecord, macs: RowMacs, *, replica: str = "", waiting: Waiting = _never_waits
) -> list[Open]:
    """The intents of a replica that have no result, oldest first. Rows that say otherwise are reported.

    `waiting` tells whether a replica wrote a record that has no place yet. An intent whose record is gone, or is not
    what a replica wrote, is left out: nothing is put on record by its word.
    """
    said = on_record(connection)
    rows = {str(row[1]): row for row in connection.execute(_ROWS, (replica,))}
    for record_id, (action_id, *_) in rows.items():
        if record_id not in said:
            macs.report("open_intent", str(action_id), "is in flight, and has ended on record or never began")
    found = []
    for record_id in sorted(record_id for record_id, whose in said.items() if whose == replica):
        body = _body_of(connection, record_id, waiting)
        if body is None:
            _log.error("intent_without_record: %s is open, and its record is gone or was changed", record_id)
            continue
        intent = decode_leaf(body)
        if intent.action is None:
            continue
        held = _reserved(intent, intent.action.id)
        _compare(macs, intent.action.id, held, rows.get(record_id))
        found.append(Open(record_id, intent, held))
    return found


_ROWS = "SELECT action_id, leaf_id, reservation FROM open_intent WHERE replica = ?"


def _body_of(connection: Connection, record_id: str, waiting: Waiting) -> bytes | None:
    placed = connection.execute("SELECT body FROM leaf WHERE id = ?", (record_id,)).fetchone()
    if placed is not None:
        return bytes(placed[0])
    queued = connection.execute("SELECT body, mac FROM ingest WHERE id = ?", (record_id,)).fetchone()
    if queued is None or not waiting(record_id, bytes(queued[0]), bytes(queued[1])):
        return None
    return bytes(queued[0])


def _reserved(intent: Leaf, action_id: str) -> Reservation | None:
    """What an intent's record says was reserved."""
    limits = intent.limits
    if limits is None:
        return None
    nanousd = int(Decimal(limits.reserved_usd) * NANOUSD_PER_USD)
    return Reservation(id=action_id, nanousd=nanousd, tokens=limits.tokens, levels=limits.levels)


def _compare(
    macs: RowMacs, action_id: str, held: Reservation | None, row: tuple[str, str, bytes | None] | None
) -> None:
    if row is None:
        macs.report("open_intent", action_id, "has no result on record, and was deleted")
        return
    try:
        packed = None if row[2] is None else _decode_reservation(row[2])
    except (msgspec.DecodeError, TypeError):
        packed = None
    same = ("id", "nanousd", "tokens", "levels")
    if any(getattr(packed, name, None) != getattr(held, name, None) for name in same):
        macs.report("open_intent", action_id, "has reserved something else than on record")


def endings(
    connection: Connection,
    code: str,
    settle: Settle | None,
    lost: Lost | None = None,
    *,
    on_record: OnRecord,
    macs: RowMacs,
    replica: str = "",
    foreign: bool = False,
    waiting: Waiting = _never_waits,
) -> Iterator[Entry]:
    """A result `unknown` for each open intent of a replica; `settle` persists the reserved spend in the same
    transaction. `foreign`: the intents are another replica's, and somebody else may be ending them too.
    """
    for one in open_intents(connection, on_record, macs, replica=replica, waiting=waiting):
        cost = CostPart("0" if one.reservation is None else usd_text(one.reservation.nanousd), estimated=True)
        entry = Entry(ending(one.intent, Status.UNKNOWN, code, cost))
        if foreign:
            entry.leaf.labels[ENDED_FOR] = replica
            entry.leaf.refs = entry.leaf.refs or RefsPart()
            entry.leaf.refs.intent = one.record_id
        entry.also = _with(entry, one, settle, lost, replica, on_record if foreign else None)
        yield entry


def _with(
    entry: Entry,
    one: Open,
    settle: Settle | None,
    lost: Lost | None,
    replica: str,
    still_open: OnRecord | None,
) -> Callable[[Connection], None]:
    def also(connection: Connection) -> None:
        if still_open is not None:
            assert one.intent.action is not None
            gone = connection.execute("DELETE FROM open_intent WHERE action_id = ?", (one.intent.action.id,))
            # Its row may have been deleted by somebody else than whoever ended it: then the log decides.
            if gone.rowcount != 1 and one.record_id not in still_open(connection):
                raise Refusal("conflict", f"The action {one.intent.action.id} was ended by another replica.")
        if one.reservation is not None and settle is not None:
            settle(connection, one.reservation, replica)
        if lost is not None and one.intent.case is None:
            entry.leaf.case = lost(connection, one.intent)

    return also
