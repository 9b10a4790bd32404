"""Model answers that were paid for and wait for the tool calls they propose: given again, never bought again."""

from __future__ import annotations

import sqlite3

import msgspec

from gateway.actions import Action
from gateway.approvals.case import KeptAnswer
from gateway.approvals.sealing import Sealing
from gateway.clock import Clock


class KeptAnswers:
    """One answer for an identical request, sealed, until its time is up. The index in memory is exact."""

    def __init__(self, sealing: Sealing, clock: Clock) -> None:
        self._sealing = sealing
        self._clock = clock
        self._until_ns: dict[str, int] = {}

    def load(self, db: sqlite3.Connection) -> None:
        """Fill the index."""
        self._until_ns = dict(db.execute("SELECT digest, until_ns FROM kept_answer"))

    def has(self, digest: str) -> bool:
        """Whether there is an answer for a request; memory only."""
        return digest in self._until_ns

    def keep(self, db: sqlite3.Connection, action: Action, answer: KeptAnswer, until_ns: int) -> None:
        """Store an answer for requests that are identical to `action`; runs in the writer's thread."""
        sealed = self._sealing.seal(msgspec.json.encode(answer), f"{action.digest}/answer")
        db.execute(
            "INSERT OR REPLACE INTO kept_answer (digest, answer_id, sealed, stream, until_ns) VALUES (?, ?, ?, ?, ?)",
            (action.digest, answer.id, sealed, int(answer.stream), until_ns),
        )

    def kept(self, digest: str, until_ns: int) -> None:
        """What `keep` stored is durable."""
        self._until_ns[digest] = until_ns

    def find(self, db: sqlite3.Connection, digest: str) -> KeptAnswer | None:
        """The answer for a request, if its time is not up."""
        row = db.execute("SELECT sealed, until_ns FROM kept_answer WHERE digest = ?", (digest,)).fetchone()
        if row is None or row[1] <= self._clock.now_ns():
            return None
        return msgspec.json.decode(self._sealing.unseal(row[0], f"{digest}/answer"), type=KeptAnswer)

    def shorten(self, db: sqlite3.Connection, answer_id: str, until_ns: int) -> None:
        """Its proposals are decided: it is given again for the replay window only; runs in the writer's thread."""
        db.execute("UPDATE kept_answer SET until_ns = min(until_ns, ?) WHERE answer_id = ?", (until_ns, answer_id))

    def drop_old(self, db: sqlite3.Connection) -> list[str]:
        """Delete what nobody is given any more; the digests. Runs in the writer's thread."""
        now_ns = self._clock.now_ns()
        old = [row[0] for row in db.execute("SELECT digest FROM kept_answer WHERE until_ns <= ?", (now_ns,))]
        db.execute("DELETE FROM kept_answer WHERE until_ns <= ?", (now_ns,))
        return old

    def dropped(self, digests: list[str]) -> None:
        """What `drop_old` deleted is gone."""
        for digest in digests:
            self._until_ns.pop(digest, None)
