"""Reads the log into a `Recorded`, and keeps that in table `recorded`, so that a start reads only what came after.

Where replicas share the log, durable records wait in a queue before they get their place. Whoever asks passes those
that wait (`Waiting`), read before the log: a record that is placed in between is then seen at least once.

Fails closed: where the records that were read are not those that were signed, nothing is said of them any more.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from functools import partial

import msgspec

from gateway.audit.recorded import CaseSaid, NamesIn, Recorded, Waiting, decode_state, encode_state
from gateway.errors import Refusal
from gateway.store.interface import Connection, Store
from gateway.store.macs import RowMacs
from gateway.verify.tree import Frontier, leaf_hash

_STEP = 1000
_STEPS = 4  # that are read in a row beside the work
_SAVE_EVERY = 5000  # records that a start may have to read anew


class Recorder:
    """Reads the log into a `Recorded` and keeps that beside it. Belongs to one log."""

    def __init__(self, store: Store, macs: RowMacs, tenant: str, *, shared: bool) -> None:
        self._store = store
        self._macs = macs
        self._tenant = tenant
        self._shared = shared
        self._zone = ""
        self.names_in: NamesIn = lambda zone, now_ns: ()
        """Names the windows of spend; without it spend is not compared."""
        self._known: Recorded | None = None
        self._frontier = Frontier()  # of the records in `_known`
        self._signed = Frontier()
        self._is_false = False
        self._saved = 0
        self._lock = threading.Lock()

    def count_in(self, zone: str, names_in: NamesIn) -> None:
        """Say how the windows of spend are named; before anything is read."""
        self._zone, self.names_in = zone, names_in

    def hold_against(self, signed: Frontier) -> None:
        """Say which tree the first records are in, as a signed checkpoint vouches for it; before anything is read.

        Somebody who can write to the database could change a record back and forth: what is read here is held against
        this tree by its own bytes, whatever else was looked at before.
        """
        self._signed = signed.copy()

    def read(self, db: Connection, *, limit: int | None = None) -> Recorded:
        """What the records say that have their place as `db` sees them; at most `limit` more than before."""
        with self._lock:
            return self._read(db, limit)

    def _read(self, db: Connection, limit: int | None) -> Recorded:
        known = self._known
        if known is None or (self._shared and self._is_far_behind(db, known)):
            self._known = known = self._load(db, known)
        self._check()
        end = None if limit is None else known.size + limit
        while end is None or known.size < end:
            step = _STEP if end is None else min(_STEP, end - known.size)
            rows = db.execute(
                "SELECT CAST(body AS BLOB) FROM leaf WHERE idx >= ? ORDER BY idx LIMIT ?", (known.size, step)
            ).fetchall()
            for (body,) in rows:
                known.add(bytes(body))
                self._frontier.append(leaf_hash(bytes(body)))
                self._check()
            if len(rows) < step:
                break
        return known

    def _check(self) -> None:
        signed, read = self._signed, self._frontier
        self._is_false = self._is_false or (read.size == signed.size and read.peaks != signed.peaks)
        if self._is_false:
            raise Refusal(
                "audit_unavailable",
                f"The audit log is not as it was signed: one of its first {signed.size} records was changed, so rows "
                "can't be compared with it; run `gateway audit verify` to find which, and restore the database from a "
                "backup.",
            )

    @staticmethod
    def _is_far_behind(db: Connection, known: Recorded) -> bool:
        """Whether another replica may have kept what this one would have to read."""
        (last,) = db.execute("SELECT max(idx) FROM leaf").fetchone()
        return last is not None and int(last) - known.size > _SAVE_EVERY

    def with_waiting(self, db: Connection, waiting: list[Waiting]) -> Recorded | None:
        """A copy of all that the log says as `db` sees it, with records that have no place yet.

        None where the log was read further already than this snapshot sees it: rows of it would seem to be old.
        """
        with self._lock:
            known = self._read(db, None)
            (last,) = db.execute("SELECT coalesce(max(idx), -1) FROM leaf").fetchone()
            return known.with_waiting(waiting) if known.size == int(last) + 1 else None

    def spent(self, db: Connection, windows: tuple[str, ...]) -> dict[tuple[str, str, str, str], tuple[int, int]]:
        """See `Recorded.spent`."""
        with self._lock:
            return self._read(db, None).spent(windows)

    def open_intents(self, db: Connection, waiting: list[Waiting]) -> dict[str, str]:
        """Intents without a result (record IDs) and the replica that performs each; `waiting` as in `with_waiting`."""
        with self._lock:
            known = self._read(db, None)
            late = Recorded("", lambda now_ns: (), shared=self._shared)
            late.state.open = dict(known.state.open)
        for _, body in waiting:
            late.add(body)
        return late.state.open

    def case(self, db: Connection, case_id: str, waiting: list[Waiting]) -> CaseSaid | None:
        """What the log says of an open case, inside a transaction; None where it has ended or was never opened.

        `waiting`: records of it that have no place yet; read those first.
        """
        with self._lock:
            known = self._read(db, None)
            said = known.state.cases.get(case_id)
            of_it = Recorded("", lambda now_ns: (), shared=False)
            if said is not None:
                of_it.state.cases[case_id] = copy.copy(said)
            late = known.not_taken(waiting)
        for _, body in late:
            of_it.add(body)
        return of_it.state.cases.get(case_id)

    def open_cases(self, db: Connection, waiting: list[Waiting], digest: str | None = None) -> dict[str, str]:
        """The cases that are open on record, perhaps only those of one identity: ID -> digest.

        `waiting` as in `case`. One that failed or was not sent may be among them: only its row tells.
        """
        with self._lock:
            known = self._read(db, None)
            late = Recorded("", lambda now_ns: (), shared=False)
            late.state.cases = {
                case: copy.copy(said) for case, said in known.state.cases.items() if digest in (None, said.digest)
            }
            new = known.not_taken(waiting)
        for _, body in new:
            late.add(body)
        return {case: said.digest for case, said in late.state.cases.items() if digest in (None, said.digest)}

    async def catch_up(self) -> None:
        """Read all that has its place by now, in steps of which each takes a moment."""
        size = -1
        while (known := await self._store.read(lambda db: self.read(db, limit=_STEP))).size != size:
            size = known.size

    async def follow(self, now_ns: int, *, saves: bool = False) -> None:
        """Read a little more; keep it once enough is new, or where `saves`. Raises Refusal where that can't be."""
        for _ in range(_STEPS):
            size = 0 if self._known is None else self._known.size
            known = await self._store.read(lambda db: self.read(db, limit=_STEP))
            if known.size < size + _STEP:
                break
        if known.size - self._saved >= (1 if saves else _SAVE_EVERY):
            await self._save(known, now_ns)

    async def _save(self, known: Recorded, now_ns: int) -> None:
        def packed() -> tuple[int, bytes]:
            with self._lock:
                known.forget_old(now_ns)
                known.state.frontier = self._frontier.to_bytes()
                return known.size, encode_state(known.state)

        size, state = await asyncio.to_thread(packed)
        row = (self._tenant, size, state)
        mac = self._macs.of("recorded", row)

        def write(db: Connection) -> None:
            db.execute(
                "INSERT INTO recorded (tenant, size, state, mac) VALUES (?, ?, ?, ?) ON CONFLICT (tenant) DO UPDATE"
                " SET size = excluded.size, state = excluded.state, mac = excluded.mac"
                " WHERE recorded.size < excluded.size",
                (*row, mac),
            )

        await self._store.write(write)
        self._saved = size

    def _load(self, db: Connection, before: Recorded | None) -> Recorded:
        names = partial(self.names_in, self._zone)
        for _, size, state in self._macs.read(db, "recorded", "WHERE tenant = ?", (self._tenant,)):
            try:
                known = decode_state(state)
                frontier = Frontier.from_bytes(size, known.frontier)
            except (msgspec.DecodeError, ValueError):  # of another version
                continue
            (last,) = db.execute("SELECT coalesce(max(idx), -1) FROM leaf").fetchone()
            if known.zone == self._zone and size <= last + 1 and (before is None or size > before.size):
                self._saved, self._frontier = size, frontier
                return Recorded(self._zone, names, shared=self._shared, state=known, size=size)
        return before or Recorded(self._zone, names, shared=self._shared)
