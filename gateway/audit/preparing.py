"""Makes an entry a record: its id, time and number among its writer's, payloads sealed, bytes canonical.

Holds what that depends on: the writer's sequence number and the intents that have no result yet. Only the thread of
the store's writer touches it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from gateway.audit.leaf import MAX_LEAF_BYTES, Entry, RefsPart, WriterPart
from gateway.audit.vault import Sealed, Vault
from gateway.clock import Clock, rfc3339
from gateway.errors import Refusal
from gateway.store.connections import is_disk_error
from gateway.store.interface import Connection

Rides = Callable[[Connection], None]

INTENT = "action.intent"
RESULT = "action.result"
ENDED_FOR = "ended_for"
"""The label of a result by which one replica ends another one's intent; its `also` takes the intent."""

_NANOS = 1_000_000_000
_encode = msgspec.json.Encoder(order="sorted").encode
_encode_reservation = msgspec.json.Encoder().encode


class Prepared(NamedTuple):
    """A record as it will be stored."""

    entry: Entry
    body: bytes
    sealed: Sealed | None

    @property
    def reservation(self) -> bytes | None:
        """What its reaper settles, packed."""
        return None if self.entry.reservation is None else _encode_reservation(self.entry.reservation)


class Preparing:
    """One writer's records, in the order in which it makes them."""

    def __init__(self, vault: Vault, clock: Clock, new_id: Callable[[], str], *, env: str) -> None:
        self.writer_id = ""
        self.open: dict[str, str] = {}  # action id -> record id of its intent
        self.vault = vault
        self._clock = clock
        self._new_id = new_id
        self._env = env
        self._epoch = 0
        self.seq = 0
        self._second = -1
        self._second_text = ""

    def begin(self, writer_id: str, epoch: int, open_intents: dict[str, str]) -> None:
        """Number from 1 in an epoch of a writer."""
        self.writer_id, self._epoch, self.open = writer_id, epoch, open_intents

    def together(
        self, connection: Connection, entries: tuple[Entry, ...], later: list[Rides] | None = None
    ) -> list[Prepared]:
        """Prepare all entries of an append or none, and do what rides with them.

        `later` is given what rides `beside` (it can't be refused), to be done at the end of the batch and at once.
        Raises what refuses it; that touches no other append.
        """
        first, opened = self.seq, dict[str, str]()
        closed: dict[str, str] = {}
        put_off: list[Rides] = []
        guarded = any(entry.also is not None and (later is None or not entry.beside) for entry in entries)
        if guarded:
            connection.execute("SAVEPOINT append")
        try:
            prepared: list[Prepared] = []
            for entry in entries:
                if entry.also is not None and later is not None and entry.beside:
                    put_off.append(entry.also)
                elif entry.also is not None:
                    entry.also(connection)
                prepared.append(self._prepare(entry, opened, closed))
        except Exception as error:
            if is_disk_error(error) or not connection.in_transaction:
                raise
            if guarded:
                connection.execute("ROLLBACK TO append")
                connection.execute("RELEASE append")
            self.seq = first
            self.reopen(opened, closed)
            raise NotWrittenError(_unwritable(error)) from error
        if guarded:
            connection.execute("RELEASE append")
        if later is not None:
            later += put_off
        return prepared

    def reopen(self, opened: dict[str, str], closed: dict[str, str]) -> None:
        """Take back which intents were opened and closed."""
        self.open.update(closed)
        for action_id in opened:
            self.open.pop(action_id, None)

    def _prepare(self, entry: Entry, opened: dict[str, str], closed: dict[str, str]) -> Prepared:
        leaf = entry.leaf
        leaf.id = self._new_id()
        leaf.ts = self._now()
        leaf.env = leaf.env or self._env
        leaf.writer = WriterPart(self.writer_id, self._epoch, self.seq + 1)
        if leaf.action is not None:
            action_id = leaf.action.id
            if leaf.type == INTENT:
                if action_id in self.open:
                    raise Refusal("conflict", f"The action {action_id} has an open intent already.")
                self.open[action_id] = opened[action_id] = leaf.id
            elif leaf.type == RESULT and ENDED_FOR not in leaf.labels:
                # `refs.intent` may be filled in already: by a commit that failed, after which this is written anew.
                intent_id = self.open.pop(action_id, None)
                if intent_id is None:
                    raise Refusal("conflict", f"The action {action_id} has no open intent: it has ended already.")
                closed[action_id] = intent_id
                if leaf.refs is None:
                    leaf.refs = RefsPart()
                leaf.refs.intent = intent_id
        sealed = self.vault.seal(leaf, entry.payloads) if entry.payloads else None
        body = _encode(leaf)
        if len(body) > MAX_LEAF_BYTES:
            raise Refusal("too_large", f"The record of {len(body)} bytes is over the {MAX_LEAF_BYTES} it may have.")
        self.seq += 1
        return Prepared(entry, body, sealed)

    def _now(self) -> str:
        second, rest = divmod(self._clock.now_ns(), _NANOS)
        if second != self._second:
            self._second, self._second_text = second, rfc3339(second * _NANOS)[:20]
        return f"{self._second_text}{rest // 1000:06d}Z"


class NotWrittenError(Exception):
    """One append was refused; `reason` is what its caller is told."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _unwritable(error: Exception) -> Exception:
    """Faults of encoding become a refusal; what `also` raised stays what it is."""
    if isinstance(error, UnicodeEncodeError | msgspec.EncodeError | OverflowError):
        return Refusal("malformed", f"The record has no canonical form ({error}).")
    return error
