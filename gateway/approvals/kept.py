"""Model answers that were paid for and wait for the tool calls they propose: given again, never bought again."""

from __future__ import annotations

import msgspec

from gateway.actions import Action
from gateway.approvals.case import KeptAnswer
from gateway.approvals.sealing import Sealing
from gateway.clock import Clock
from gateway.store.interface import Connection


class KeptAnswers:
    """One answer for an identical request, sealed, until its time is up.

    A request is identical by its action's digest (which covers its head) and by every byte of its body. The index
    in memory may say yes to one that is not there any more, never no to one that is.
    """

    def __init__(self, sealing: Sealing, clock: Clock) -> None:
        self._sealing = sealing
        self._clock = clock
        self._until_ns: dict[str, int] = {}  # digest of the action -> until when there may be an answer

    def load(self, db: Connection) -> None:
        """Fill the index."""
        self._until_ns |= dict(db.execute("SELECT digest, max(until_ns) FROM kept_answer GROUP BY digest"))

    def has(self, digest: str) -> bool:
        """Whether there may be an answer for a request; memory only."""
        return digest in self._until_ns

    def expect(self, digest: str, until_ns: int) -> None:
        """An answer is about to be kept, or one that is kept will stay longer."""
        self._until_ns[digest] = max(until_ns, self._until_ns.get(digest, 0))

    def forget_old(self) -> None:
        """Drop from the index what is over."""
        now_ns = self._clock.now_ns()
        for digest in [digest for digest, until_ns in self._until_ns.items() if until_ns <= now_ns]:
            del self._until_ns[digest]

    # ------------------------------------------------------------ in a transaction

    def keep(self, db: Connection, action: Action, answer: KeptAnswer, until_ns: int) -> None:
        """Store an answer for requests that are identical to `action`."""
        request = self._request(action)
        sealed = self._sealing.seal(msgspec.json.encode(answer), f"{request}/answer")
        db.execute(
            "INSERT INTO kept_answer (request, digest, answer_id, sealed, stream, until_ns)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (request) DO UPDATE SET digest = excluded.digest,"
            " answer_id = excluded.answer_id, sealed = excluded.sealed, stream = excluded.stream,"
            " until_ns = excluded.until_ns",
            (request, action.digest, answer.id, sealed, int(answer.stream), until_ns),
        )

    def find(self, db: Connection, action: Action) -> KeptAnswer | None:
        """The answer for a request, if its time is not up."""
        request = self._request(action)
        row = db.execute(
            "SELECT sealed FROM kept_answer WHERE request = ? AND until_ns > ?", (request, self._clock.now_ns())
        ).fetchone()
        if row is None:
            return None
        return msgspec.json.decode(self._sealing.unseal(row[0], f"{request}/answer"), type=KeptAnswer)

    def shorten(self, db: Connection, answer_id: str, until_ns: int) -> None:
        """One of its proposals is decided: once all are, it is given again for the replay window only."""
        db.execute(
            "UPDATE kept_answer SET until_ns = ? WHERE answer_id = ? AND until_ns > ?"
            " AND NOT EXISTS (SELECT 1 FROM approval_case WHERE parent = ? AND open = 1)",
            (until_ns, answer_id, until_ns, answer_id),
        )

    def lengthen(self, db: Connection, answer_id: str, until_ns: int) -> list[str]:
        """One of its proposals may be released until then; the digests to `expect`."""
        db.execute(
            "UPDATE kept_answer SET until_ns = ? WHERE answer_id = ? AND until_ns < ?", (until_ns, answer_id, until_ns)
        )
        return [row[0] for row in db.execute("SELECT digest FROM kept_answer WHERE answer_id = ?", (answer_id,))]

    def drop_old(self, db: Connection) -> None:
        """Delete what nobody is given any more."""
        db.execute("DELETE FROM kept_answer WHERE until_ns <= ?", (self._clock.now_ns(),))

    def _request(self, action: Action) -> str:
        return self._sealing.mac(msgspec.json.encode([action.digest, action.body]))
