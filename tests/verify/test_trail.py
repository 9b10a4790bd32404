"""The walk over a trail whose writer was at fault: what the tree can't tell, the records' own rules do."""

from __future__ import annotations

from typing import Any

from gateway.verify.canonical import encode
from gateway.verify.trail import Findings, Trail
from gateway.verify.tree import leaf_hash, root_of

EMPTY: dict[str, Any] = dict.fromkeys(
    ["actor", "session", "trace", "action", "model", "decision", "case", "limits", "cost", "result", "refs"]
)


def record(
    type_: str, seq: int, *, epoch: int = 1, action: str = "a", intent: str | None = None, v: int = 1
) -> dict[str, Any]:
    return EMPTY | {
        "v": v,
        "id": f"id-{epoch}-{seq}",
        "type": type_,
        "ts": "2026-11-22T10:00:00.000000Z",
        "writer": {"id": "w", "epoch": epoch, "seq": seq},
        "tenant": "t",
        "env": "dev",
        "action": {"id": action} if type_.startswith("action.") else None,
        "refs": {"intent": intent},
        "obligations": [],
        "payloads": [],
        "labels": {},
    }


def walk(*leaves: dict[str, Any]) -> Trail:
    trail = Trail(Findings())
    for idx, leaf in enumerate(leaves):
        body = encode(leaf)
        trail.add(idx, leaf["id"], body, leaf_hash(body))
    return trail


def codes(trail: Trail) -> list[str]:
    return [finding.code for finding in trail.findings.kept]


def test_a_sound_trail_has_no_findings_and_the_right_root() -> None:
    leaves = [
        record("gateway.start", 1),
        record("action.intent", 2),
        record("action.result", 3, intent="id-1-2"),
        record("gateway.start", 1, epoch=2),
    ]
    trail = walk(*leaves)
    assert codes(trail) == []
    assert trail.frontier.root() == root_of([leaf_hash(encode(leaf)) for leaf in leaves])
    assert trail.lost_intents(running=False) == []


def test_gaps_in_a_writers_sequence_are_told() -> None:
    for second in (record("x.y", 3), record("x.y", 1), record("x.y", 1, epoch=3), record("x.y", 2, epoch=2)):
        assert codes(walk(record("gateway.start", 1), second)) == ["sequence_gap"]


def test_two_results_and_results_of_nothing_are_told() -> None:
    intent, result = record("action.intent", 1), record("action.result", 2, intent="id-1-1")
    assert codes(walk(intent, result, record("action.result", 3, intent="id-1-1"))) == ["two_results"]
    assert codes(walk(record("action.result", 1, intent="nothing"))) == ["result_without_intent"]
    assert codes(walk(intent, record("action.result", 2, intent="id-1-1", action="b"))) == ["result_mismatch"]


def test_an_intent_without_a_result_is_lost_only_when_nobody_can_still_end_it() -> None:
    intent = record("action.intent", 1)
    assert walk(intent).lost_intents(running=True) == []
    assert walk(intent).lost_intents(running=False) == []  # killed: the next start ends it
    stopped = walk(intent, record("gateway.stop", 2))
    assert stopped.lost_intents(running=False) == [("id-1-1", 0)]
    later = walk(intent, record("gateway.start", 1, epoch=2))
    assert later.lost_intents(running=True) == [("id-1-1", 0)]


def test_unknown_versions_and_missing_or_added_fields_are_told() -> None:
    short = record("x.y", 1)
    del short["labels"]
    for leaf in (record("x.y", 1, v=2), short, record("x.y", 1) | {"more": 1}, record("x.y", 1) | {"writer": None}):
        assert codes(walk(leaf)) == ["record_malformed"]


def test_a_record_under_a_wrong_id_hash_or_index_is_told() -> None:
    leaf = record("x.y", 1)
    body = encode(leaf)
    for idx, record_id, stored in (
        (0, "other", leaf_hash(body)),
        (0, leaf["id"], b"x" * 32),
        (4, leaf["id"], leaf_hash(body)),
    ):
        trail = Trail(Findings())
        trail.add(idx, record_id, body, stored)
        assert len(trail.findings.kept) == 1


def test_findings_are_counted_beyond_what_is_kept() -> None:
    trail = walk(*[record("x.y", 5) for _ in range(150)])
    assert len(trail.findings.kept) == 100
    assert trail.findings.count == 150
