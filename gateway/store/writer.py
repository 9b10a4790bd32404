"""The one writer: a thread, a transaction at a time, a queue, and group commit.

Everything that waits in the queue is committed together. Where somebody awaits, the commit happens at once;
where nobody does, it may linger up to 20 ms so that more can join. After an error of the disk nothing is written any
more (`latched`): a failed fsync may be reported only once and later ones succeed without the data. A database that is
only away (another machine) is waited for: what already happened is kept and written when it is back, and whoever
awaits is refused at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from gateway.errors import Refusal
from gateway.store.database import Database, LostError, part
from gateway.store.interface import Connection, Group
from gateway.store.sqlite import SqliteDatabase

T = TypeVar("T")
_Future = asyncio.Future[Any]
_log = logging.getLogger("gateway.store")

QUEUE_LIMIT = 4096
_UNAWAITED_LIMIT = 4 * QUEUE_LIMIT
_CERTAIN_LIMIT = 64 * QUEUE_LIMIT  # far more than can be under way: reached only by a disk that stands still
_AWAITED, _UNAWAITED, _CERTAIN = range(3)  # each is counted by itself, so that none can crowd out another
_LIMITS = (QUEUE_LIMIT, _UNAWAITED_LIMIT, _CERTAIN_LIMIT)
_LINGER_S = 0.02
_TIMEOUT_S = 2.0
_READ_TIMEOUT_S = 10.0
_LATE_READ_TIMEOUT_S = 1.0
_PROBE_S = 0.1  # between two tries to reach a database that is away


class _Job:
    __slots__ = ("future", "group", "item", "lane", "late")

    def __init__(
        self, group: Group | None, item: Any, future: _Future | None, late: Callable[[], None] | None, lane: int
    ) -> None:
        self.group = group
        self.lane = lane
        self.item = item
        self.future = future
        self.late = late


class Writer:
    """Durable writes to one database: an `interface.Store`. One event loop uses it."""

    def __init__(self, database: Database, *, timeout_s: float = _TIMEOUT_S, linger_s: float = _LINGER_S) -> None:
        self.database = database
        self.is_late: Callable[[], bool] = lambda: False
        """Whether the database is known to stand still just now: then readers do not wait for long."""
        self.latched: str | None = None
        self.on_commit: Callable[[int, float], None] | None = None
        """Told, in the writer's thread, how many items each commit made durable and how long it took, in seconds."""
        self._timeout_s = timeout_s
        self._linger_s = linger_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._put = [0, 0, 0]  # items ever queued, by lane; only the event loop's thread counts here
        self._taken = [0, 0, 0]  # and ever taken off; only the writer's thread
        self._deadlines: deque[tuple[float, _Future]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._began_s: float | None = None  # when the transaction of now began
        self.commits = 0
        database.latch = self.latch
        self._readers = ThreadPoolExecutor(database.readers, thread_name_prefix="gateway-read")
        self._thread = threading.Thread(target=self._run, name="gateway-write", daemon=True)
        self._thread.start()

    @staticmethod
    def open(data_dir: Path, *, timeout_s: float = _TIMEOUT_S, linger_s: float = _LINGER_S) -> Writer:
        """A writer of the embedded database. Raises Refusal(store_unavailable): see `SqliteDatabase`."""
        return Writer(SqliteDatabase(data_dir), timeout_s=timeout_s, linger_s=linger_s)

    # ------------------------------------------------------------ for the event loop

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in the writer's transaction; durable when this returns.

        `fn` runs in the writer's thread, must not commit, and should take well under a millisecond. What it
        raises comes back here and undoes only its own part. Raises Refusal(audit_unavailable) when latched,
        when the queue is full, or when the commit takes too long.
        """
        result: T = await self.submit(None, fn)
        return result

    def write_soon(self, fn: Callable[[Connection], object]) -> None:
        """Run `fn` with the next commit, at most about 20 ms away. Raises Refusal(audit_unavailable)."""
        self.submit_soon(None, fn)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` on a read-only connection in another thread; sees what is committed.

        Raises Refusal(store_unavailable) where the database can't be reached or takes too long.
        """
        reading = asyncio.get_running_loop().run_in_executor(self._readers, self.database.read, fn)
        timeout_s = _LATE_READ_TIMEOUT_S if self.is_late() else _READ_TIMEOUT_S
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(reading)
        except LostError as error:  # whose text may say where the database is, and that is not for callers
            raise unreachable("it does not answer") from error
        except TimeoutError:
            raise unreachable(f"it did not answer within {timeout_s:g} s") from None
        finally:
            if not reading.done():  # nobody waits for it any more, nor for what goes wrong with it
                reading.add_done_callback(lambda done: done.cancelled() or done.exception())

    def submit(
        self, group: Group | None, item: Any, late: Callable[[], None] | None = None, *, certain: bool = False
    ) -> _Future:
        """Queue `item` for `group`; the future ends when it is durable or refused.

        `late` is called on the event loop if the item became durable after the future had been given up. `certain` is
        for what already happened: it is waited for as long as the disk takes, and written whether or not anybody
        still waits.
        """
        lane = _CERTAIN if certain else _AWAITED
        self._check(lane)
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not certain:
            self._deadlines.append((time.monotonic() + self._timeout_s, future))
            if self._timer is None:
                self._timer = loop.call_later(self._timeout_s / 4, self._expire)
        self._put[lane] += 1
        self._queue.put(_Job(group, item, future, late, lane))
        return future

    def submit_soon(self, group: Group | None, item: Any, *, certain: bool = False) -> None:
        """Queue `item` for `group` without waiting for it.

        `certain` is for what already happened, so that a flood of the rest can't make it refused; if even such
        items can't be queued any more, the writer latches, and the next start finds what they would have ended.
        Raises Refusal(audit_unavailable).
        """
        lane = _CERTAIN if certain else _UNAWAITED
        self._check(lane)
        self._put[lane] += 1
        self._queue.put(_Job(group, item, None, None, lane))

    def forget_deleted(self) -> None:
        """Empty the write-ahead log soon: it still holds what was deleted from the database."""
        self.database.forget_deleted()

    @property
    def away(self) -> str | None:
        """Why the database can't be reached just now; it comes back by itself. None while it can."""
        return self.database.away

    @property
    def queued(self) -> int:
        """Items that wait for the writer."""
        return self._queue.qsize()

    def latch(self, reason: str) -> None:
        """Refuse every write from now on, until a restart. Any thread may call it; the first reason stays."""
        if self.latched is None:
            self.latched = reason
            _log.error("no more writes until a restart: %s", reason)

    async def close(self) -> None:
        """Commit what is queued, end the threads, give the data directory free."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        self._queue.put(None)
        await loop.run_in_executor(None, self._join)
        if self._timer is not None:
            self._timer.cancel()

    def _check(self, lane: int) -> None:
        if self.latched is not None:
            raise _refused(self.latched)
        if self._closed:
            raise _refused("the gateway is stopping")
        if lane == _AWAITED:
            if self.database.away is not None:
                raise _refused(self.database.away)
            if self._began_s is not None and time.monotonic() - self._began_s > self._timeout_s:
                raise _refused(f"the database has not answered for {self._timeout_s:g} s")
        if self._put[lane] - self._taken[lane] >= _LIMITS[lane]:
            reason = f"{_LIMITS[lane]} writes are waiting for the disk already"
            if lane == _CERTAIN:
                self.latch(reason)
            raise _refused(reason)

    def _expire(self) -> None:
        deadlines, now = self._deadlines, time.monotonic()
        while deadlines and (deadlines[0][1].done() or deadlines[0][0] <= now):
            future = deadlines.popleft()[1]
            if not future.done():
                future.set_exception(_refused(f"the write took longer than {self._timeout_s:g} s"))
        self._timer = None
        if deadlines and self._loop is not None:
            self._timer = self._loop.call_later(self._timeout_s / 4, self._expire)

    # ------------------------------------------------------------ in the threads

    def _join(self) -> None:
        self._thread.join()
        self._readers.shutdown(wait=self.database.away is None, cancel_futures=True)
        self.database.close(latched=self.latched is not None)

    def _run(self) -> None:
        going = True
        while going:
            job = self._next()
            if job is None:
                return
            batch = [job]
            going = self._gather(batch)
            for job in batch:
                self._taken[job.lane] += 1
            self._commit(batch)
            self.database.committed(self.commits)

    def _next(self) -> _Job | None:
        """The next job; while the database is away, not before it is back, or else only what can't wait: the end."""
        while self.database.away is not None and self.latched is None and not self._closed:
            time.sleep(_PROBE_S)
            self._probe()
        return self._queue.get()

    def _probe(self) -> None:
        try:
            self.database.begin(alone=False)
        except self.database.faults:
            return
        self.database.roll_back()

    def _gather(self, batch: list[_Job]) -> bool:
        """Add what is queued, and while nobody awaits, what comes within the linger. False: the last batch."""
        awaited = batch[0].future is not None
        until = time.monotonic() + self._linger_s
        queue = self._queue
        while len(batch) < QUEUE_LIMIT:
            try:
                wait_s = 0.0 if awaited else max(0.0, until - time.monotonic())
                job = queue.get(timeout=wait_s) if wait_s else queue.get_nowait()
            except Empty:
                break
            if job is None:
                return False
            batch.append(job)
            awaited = awaited or job.future is not None
        return True

    def _commit(self, batch: list[_Job]) -> None:
        batch = [job for job in batch if job.lane == _CERTAIN or job.future is None or not job.future.done()]
        if not batch:
            return
        outcomes: list[Any]
        self._began_s = began_s = time.monotonic()
        try:
            outcomes = self._transact(batch)
            if self.on_commit is not None and self.latched is None:
                self.on_commit(len(batch), time.monotonic() - began_s)
        except self.database.faults as error:
            if self.latched is None:
                batch = self._again(batch)
            is_lost = isinstance(error, LostError)
            reason = (
                self.latched or self.database.away or "the database was lost"
                if is_lost
                else f"the database said: {error}"
            )
            outcomes = [_refused(reason)] * len(batch)
        except Exception as error:  # noqa: BLE001 - a fault of ours: told to all, and whatever it left behind must not become durable
            self.latch(f"a fault in the writer: {error!r}")
            self.database.roll_back()
            outcomes = [_refused(f"a fault in the writer: {error!r}")] * len(batch)
        finally:
            self._began_s = None
        self.commits += 1  # before anybody is told
        ends: list[tuple[_Job, Any]] = []
        for job, outcome in zip(batch, outcomes, strict=True):
            if job.future is not None:
                ends.append((job, outcome))
            elif isinstance(outcome, Exception):
                _log.error("a write that nobody waits for was not made: %s", outcome)
        if ends and self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(_resolve, ends)
            except RuntimeError:  # the loop is closed: nobody is left to be told
                _log.warning("%d writes ended after the event loop did", len(ends))

    def _again(self, batch: list[_Job]) -> list[_Job]:
        """It was only busy or away: what already happened is tried again until it is written; the rest."""
        if self._closed:  # there is no later
            return batch
        for job in batch:
            if job.lane == _CERTAIN:
                self._taken[_CERTAIN] -= 1
                self._queue.put(job)
        return [job for job in batch if job.lane != _CERTAIN]

    def _transact(self, batch: list[_Job]) -> list[Any]:
        """Write the batch as one transaction. Raises an error of the database, latched where it lasts."""
        if self.latched is not None:
            return [_refused(self.latched)] * len(batch)
        database = self.database
        groups: list[Group] = []
        began = False
        try:
            database.begin(alone=any(job.group is None or job.group.alone(job.item) for job in batch))
            began = True
            outcomes = self._apply(batch, groups)
            database.commit()
        except database.faults as error:
            if not isinstance(error, LostError) and database.is_lasting(error, began=began):
                self.latch(f"the database said at {'a commit' if began else 'the start of a commit'}: {error}")
            database.roll_back()
            for group in groups:
                group.undone()
            raise
        for group in groups:
            group.committed()
        return outcomes

    def _apply(self, batch: list[_Job], groups: list[Group]) -> list[Any]:
        outcomes: list[Any] = []
        at = 0
        while at < len(batch):
            group = batch[at].group
            if group is None:
                outcomes.append(part(self.database, batch[at].item))
                at += 1
                continue
            end = at + 1
            while end < len(batch) and batch[end].group is group:
                end += 1
            if group not in groups:
                groups.append(group)
            outcomes += group.apply(self.database.connection, [job.item for job in batch[at:end]])
            at = end
        return outcomes


def _refused(reason: str) -> Refusal:
    return Refusal("audit_unavailable", f"Nothing can be recorded, so nothing may happen: {reason}.", retry_after_s=5)


def unreachable(reason: str) -> Refusal:
    """What a reader is told of a database that is away."""
    return Refusal("store_unavailable", f"The database can't be read now: {reason}; try again.", retry_after_s=2)


def _resolve(ends: list[tuple[_Job, Any]]) -> None:
    for job, outcome in ends:
        future = job.future
        if future is None:
            continue
        if future.done():
            if job.late is not None and not isinstance(outcome, Exception):
                job.late()
        elif isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
