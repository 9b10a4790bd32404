"""One budget of memory for the answers of all upstreams, models and tools alike.

Bytes count from the moment they are buffered until the task of the call that they answer has ended. Where the budget is
spent, the answer that asks for more is given up; once nearly all is spent, no further call is sent. One agent has at
most half of it, and answers that are not small leave a quarter to those that are: a flood of large answers keeps
nobody else's small ones out. What a body costs beside its bytes (a copy while it is joined, parsed or written) is
bounded by the caps on one answer.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from gateway.errors import Refusal

MAX_BYTES: Final = 256 * 1024 * 1024
SMALL_BYTES: Final = 1024 * 1024
RETRY_AFTER_S: Final = 5


class AnswerBudget:
    """Belongs to one event loop. `most`: bytes in all; `small`: what an answer may have to count as small."""

    def __init__(self, most: int = MAX_BYTES, small: int = SMALL_BYTES) -> None:
        self.most = most
        self.small = small
        self.used = 0
        self.used_by: dict[str, int] = {}  # agent -> bytes
        self._of_tasks: dict[asyncio.Task[Any], Holding] = {}

    def admit(self, agent_id: str) -> None:
        """What the current task is answered counts as this agent's.

        Raises Refusal `rate_limited` (503) where there is hardly any room left; then nothing was sent.
        """
        if self.used > self.most * 15 // 16:
            raise _unsent("The gateway holds as much of upstreams' answers as it can")
        if self.used_by.get(agent_id, 0) > self.most * 7 // 16:
            raise _unsent("The gateway holds as much of upstreams' answers to this agent as it can")
        self.of_task().agent_id = agent_id

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

    def has_room(self, agent_id: str, held: int, size: int) -> bool:
        """Whether an answer of which `held` bytes are held may have `size` more."""
        most = self.most if held + size <= self.small else self.most * 3 // 4
        if agent_id and self.used_by.get(agent_id, 0) + size > self.most // 2:
            return False
        return self.used + size <= most

    def count(self, agent_id: str, size: int) -> None:
        """`size` bytes more are held; fewer where it is negative."""
        self.used += size
        if agent_id:
            of_agent = self.used_by.get(agent_id, 0) + size
            if of_agent:
                self.used_by[agent_id] = of_agent
            else:
                self.used_by.pop(agent_id, None)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._of_tasks.pop(task).give_back()


class Holding:
    """What one call holds of the budget; `agent_id` is whose it is, where it is an agent's."""

    __slots__ = ("_budget", "agent_id", "held")

    def __init__(self, budget: AnswerBudget) -> None:
        self._budget = budget
        self.agent_id = ""
        self.held = 0

    def add(self, size: int) -> bool:
        """Hold `size` bytes more; False where there is no room for them."""
        if not self._budget.has_room(self.agent_id, self.held, size):
            return False
        self._budget.count(self.agent_id, size)
        self.held += size
        return True

    def at_least(self, size: int) -> bool:
        """Hold `size` bytes in all, or what is held if that is more; False where there is no room."""
        return size <= self.held or self.add(size - self.held)

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._budget.count(self.agent_id, -self.held)
        self.held = 0


def _unsent(why: str) -> Refusal:
    return Refusal(
        "rate_limited",
        f"{why}, so nothing was sent; try again in a moment.",
        retry_after_s=RETRY_AFTER_S,
        http_status=503,
        detail={"dispatched": "no"},
    )


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
