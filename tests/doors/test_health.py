"""What is wrong, since when, and who is told of it."""

from __future__ import annotations

from gateway.clock import ManualClock
from gateway.doors.health import Condition, Health


def test_a_part_that_fails_and_comes_back_is_told_once_each() -> None:
    clock = ManualClock(1_000)
    health = Health(clock)
    told: list[Condition] = []
    health.on_change = told.append
    reasons: dict[str, str | None] = {"one": None, "two": "It is away."}
    for name in reasons:
        health.add(name, lambda name=name: reasons[name], needed=name == "two")  # type: ignore[misc]
    for _ in range(3):
        health.conditions()
    assert told == [Condition("two", "It is away.", 1_000, True)], "what is well from the start is no news"
    clock.advance(1)
    reasons |= {"one": "It broke.", "two": None}
    assert health.unready() == []
    assert health.degraded() == ["one"]
    assert told[1:] == [
        Condition("one", "It broke.", 1_000_001_000, False),
        Condition("two", None, 1_000_001_000, True),
    ]
