"""What the log says of rows, as a start keeps it."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.audit.recorded import Recorded, nanoseconds

DAY_NS = 86_400 * 10**9
TS = "2026-11-01T12:00:00.000000Z"


def record(case: str, type_: str, **parts: Any) -> bytes:
    """As much of a record of a case as is read."""
    leaf = {"id": f"{case}/{type_}", "type": type_, "ts": TS, "tenant": "default", "case": case, "labels": {}}
    return msgspec.json.encode(leaf | {"decision": None, "action": {"digest": case}, "result": None} | parts)


def test_a_case_that_failed_is_forgotten_once_it_can_not_be_approved_any_more() -> None:
    recorded = Recorded("", lambda now_ns: (), shared=False)
    for case in ("failed", "waits"):
        recorded.add(record(case, "action.requested"))
    recorded.add(record("failed", "case.approved"))
    recorded.add(record("failed", "action.intent"))
    recorded.add(record("failed", "action.result", result={"status": "failed"}))
    assert recorded.state.cases["failed"].states == {"failed", "approved"}
    recorded.forget_old(nanoseconds(TS) + 30 * DAY_NS)
    assert set(recorded.state.cases) == {"failed", "waits"}
    recorded.forget_old(nanoseconds(TS) + 32 * DAY_NS)
    assert set(recorded.state.cases) == {"waits"}


def test_a_record_that_was_placed_meanwhile_is_not_counted_twice() -> None:
    recorded = Recorded("", lambda now_ns: (), shared=True)
    recorded.add(record("one", "action.requested"))
    vote = record("one", "case.voted", labels={"vote": "v-1"})
    waiting = [("one/case.voted", vote)]  # read before the log was
    recorded.add(vote)
    seen = recorded.with_waiting(waiting)
    assert seen.state.cases["one"].votes == 1
    assert recorded.not_taken(waiting) == []
