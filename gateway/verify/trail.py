"""Walks a trail record by record and says what is wrong with it. Offline, in one pass, in bounded steps.

Checks of each record: contiguous index, stored hash, canonical bytes, version, a gap-free sequence per writer
and epoch, and exactly one result for each intent. `Trail.frontier` is the tree over all records; holding it against
signed checkpoints is the caller's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.verify.canonical import NotCanonicalError, decode
from gateway.verify.tree import Frontier, leaf_hash

_MAX_FINDINGS = 100
_INTENT = "action.intent"
_RESULT = "action.result"
_STOP = "gateway.stop"

# Every record of version 1 has all of these, null where they do not apply.
_FIELDS = frozenset(
    {"v", "id", "type", "ts", "writer", "tenant", "env", "actor", "session", "trace", "action", "model", "decision"}
    | {"case", "obligations", "limits", "cost", "result", "refs", "payloads", "labels"}
)


class Finding(NamedTuple):
    """One thing that is wrong. `code` is for machines; `idx` the record's index where there is one."""

    code: str
    message: str
    idx: int | None = None


class Findings:
    """Keeps the first hundred and counts the rest."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.count = 0

    def add(self, code: str, message: str, idx: int | None = None) -> None:
        """One more thing that is wrong."""
        self.count += 1
        if len(self.kept) < _MAX_FINDINGS:
            self.kept.append(Finding(code, message, idx))


class Trail:
    """Takes records in order with `add`. `findings` holds what is wrong."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.frontier = Frontier()
        self.open: dict[str, tuple[int, str, tuple[str, int]]] = {}  # intent -> index, action id, writer and epoch
        self.first_ts: str | None = None
        self.last_ts: str | None = None
        self._next = 0
        self._closed: set[str] = set()
        self._writers: dict[str, tuple[int, int, str]] = {}  # writer -> last epoch, last seq, last type

    @property
    def size(self) -> int:
        """Records walked."""
        return self.frontier.size

    def lost_intents(self, *, running: bool) -> list[tuple[str, int]]:
        """Record id and index of intents that should have a result by now.

        Those of a writer's last epoch may be in flight while it runs, or wait for its next start after a crash;
        those of an earlier epoch, or of one that was stopped in order, may not.
        """
        lost: list[tuple[str, int]] = []
        for intent_id, (idx, _, (writer, epoch)) in self.open.items():
            last_epoch, _, last_type = self._writers[writer]
            if epoch != last_epoch or (last_type == _STOP and not running):
                lost.append((intent_id, idx))
        return lost

    def add(self, idx: int, record_id: str, body: bytes, stored: bytes) -> dict[str, Any] | None:
        """Check the next record; its document, or None if it can't be read."""
        if idx != self._next:
            self.findings.add("records_missing", f"record {idx} stands where {self._next} should", idx)
        self._next = idx + 1
        hashed = leaf_hash(body)
        self.frontier.append(hashed)
        if hashed != stored:
            self.findings.add("record_altered", f"record {idx} is not the one whose hash was stored", idx)
        try:
            leaf = decode(body)
        except NotCanonicalError as error:
            self.findings.add("record_malformed", f"record {idx} is not canonical: {error}", idx)
            return None
        try:
            self._follow(idx, record_id, leaf)
        except (KeyError, TypeError, AttributeError, ValueError):
            self.findings.add("record_malformed", f"record {idx} has not the fields of a record, version 1", idx)
            return None
        return leaf

    def _follow(self, idx: int, record_id: str, leaf: dict[str, Any]) -> None:
        if leaf["v"] != 1 or leaf.keys() != _FIELDS:
            raise ValueError
        if leaf["id"] != record_id:
            self.findings.add("record_altered", f"record {idx} is filed under another id than its own", idx)
        writer, epoch, seq = leaf["writer"]["id"], int(leaf["writer"]["epoch"]), int(leaf["writer"]["seq"])
        last_epoch, last_seq, _ = self._writers.get(writer, (0, 0, ""))
        follows = (epoch == last_epoch and seq == last_seq + 1) or (epoch == last_epoch + 1 and seq == 1)
        if not follows:
            self.findings.add(
                "sequence_gap",
                f"record {idx} is number {seq} in epoch {epoch} of {writer}, after number {last_seq} in {last_epoch}",
                idx,
            )
        self._writers[writer] = (epoch, seq, leaf["type"])
        self.first_ts = self.first_ts or leaf["ts"]
        self.last_ts = leaf["ts"]
        if leaf["type"] == _INTENT:
            self.open[leaf["id"]] = (idx, leaf["action"]["id"], (writer, epoch))
        elif leaf["type"] == _RESULT:
            self._end(idx, leaf)

    def _end(self, idx: int, leaf: dict[str, Any]) -> None:
        intent_id = leaf["refs"]["intent"]
        intent = self.open.pop(intent_id, None)
        if intent is None:
            if intent_id in self._closed:
                self.findings.add("two_results", f"record {idx} is a second result of intent {intent_id}", idx)
            else:
                self.findings.add("result_without_intent", f"record {idx} ends the unknown {intent_id}", idx)
            return
        self._closed.add(intent_id)
        if intent[1] != leaf["action"]["id"]:
            self.findings.add("result_mismatch", f"record {idx} is of another action than its intent", idx)
