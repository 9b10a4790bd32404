"""One budget of memory for the answers of all upstreams, models and tools alike.

Bytes count from the moment they are buffered until the task of the call that they answer has ended. Where the budget is
spent, the answer that asks for more is given up; before that, once three quarters are spent, no further call is sent.
What a body costs beside its bytes (a copy while it is joined, parsed or written) is bounded by the caps on one answer.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from gateway.errors import Refusal

MAX_BYTES: Final = 256 * 1024 * 1024
RETRY_AFTER_S: Final = 5


class AnswerBudget:
    """Belongs to one event loop. `most`: bytes in all."""

    def __init__(self, most: int = MAX_BYTES) -> None:
        self.most = most
        self.used = 0
        self._of_tasks: dict[asyncio.Task[Any], Holding] = {}

    def admit(self) -> None:
        """Raises Refusal `rate_limited` (503) where there is little room left; then nothing was sent."""
        if self.used > self.most * 3 // 4:
            raise Refusal(
                "rate_limited",
                "The gateway holds as much of upstreams' answers as it can, so nothing was sent; try again in a"
                " moment.",
                retry_after_s=RETRY_AFTER_S,
                http_status=503,
                detail={"dispatched": "no"},
            )

    def holding(self) -> Holding:
        """A holding of its own; whoever asks for it gives it back."""
        return Holding(self)

    def of_task(self) -> Holding:
        """The holding of the current task, given back when that ends."""
        task = asyncio.current_task()
        assert task is not None
        found = self._of_tasks.get(task)
        if found is None:
            found = self._of_tasks[task] = Holding(self)
            task.add_done_callback(self._over)
        return found

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._of_tasks.pop(task).give_back()


class Holding:
    """What one call holds of the budget."""

    __slots__ = ("_budget", "held")

    def __init__(self, budget: AnswerBudget) -> None:
        self._budget = budget
        self.held = 0

    def add(self, size: int) -> bool:
        """Hold `size` bytes more; False where there is no room for them."""
        if self._budget.used + size > self._budget.most:
            return False
        self._budget.used += size
        self.held += size
        return True

    def at_least(self, size: int) -> bool:
        """Hold `size` bytes in all, or what is held if that is more; False where there is no room."""
        return size <= self.held or self.add(size - self.held)

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._budget.used -= self.held
        self.held = 0


def full(whose: str, detail: dict[str, str]) -> Refusal:
    """The refusal for an answer that found no room; `whose` is the subject of the sentence."""
    return Refusal(
        "upstream_failed",
        f"{whose} answered, but the gateway holds as much of upstreams' answers as it can, so the answer was given up;"
        " ask for less at once.",
        retry_after_s=RETRY_AFTER_S,
        http_status=503,
        detail={**detail, "dispatched": "unknown"},
    )
