"""The one writer: a thread, a connection, a queue, and group commit.

Everything that waits in the queue is committed together. Where somebody awaits, the commit happens at once;
where nobody does, it may linger up to 20 ms so that more can join. After the first disk error nothing is
written any more (`latched`): a failed fsync may be reported only once and later ones succeed without the data.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from gateway.errors import Refusal
from gateway.store import schema
from gateway.store.connections import (
    DATABASE_NAME,
    is_busy,
    is_disk_error,
    open_for_reading,
    open_for_writing,
)
from gateway.store.lock import DirectoryLock
from gateway.store.wal import WalCheckpointer

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
_POKE_EVERY = 64  # commits between two looks at the size of the write-ahead log


class Group(Protocol):
    """Takes all items of a kind in a batch at once; both methods run in the writer's thread.

    An item's own failure is its outcome and must leave no row behind; a disk error must be raised.
    """

    def apply(self, connection: sqlite3.Connection, items: list[Any]) -> list[Any]:
        """Write the items inside the open transaction; one outcome each, an exception instance for a failure."""
        ...

    def committed(self) -> None:
        """What was applied is now durable."""
        ...


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
    """Durable writes of one data directory. One event loop uses it; made by `Writer.open`."""

    def __init__(self, path: Path, lock: DirectoryLock, *, timeout_s: float, linger_s: float) -> None:
        self.path = path
        self.latched: str | None = None
        self.on_commit: Callable[[int, float], None] | None = None
        """Told, in the writer's thread, how many items each commit made durable and how long it took, in seconds."""
        self._lock = lock
        self._timeout_s = timeout_s
        self._linger_s = linger_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._put = [0, 0, 0]  # items ever queued, by lane; only the event loop's thread counts here
        self._taken = [0, 0, 0]  # and ever taken off; only the writer's thread
        self._deadlines: deque[tuple[float, _Future]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.commits = 0
        self._connection = open_for_writing(path)
        self._wal = WalCheckpointer(path, self.latch)
        self._reader: sqlite3.Connection | None = None
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="gateway-read")
        self._thread = threading.Thread(target=self._run, name="gateway-write", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, data_dir: Path, *, timeout_s: float = _TIMEOUT_S, linger_s: float = _LINGER_S) -> Writer:
        """Lock the data directory, migrate the database if need be, start the thread.

        Raises Refusal(store_unavailable) if another gateway has the directory or the database is newer than
        the code or unreadable.
        """
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = DirectoryLock(data_dir)
        try:
            path = data_dir / DATABASE_NAME
            schema.migrate(path)
            return cls(path, lock, timeout_s=timeout_s, linger_s=linger_s)
        except BaseException:
            lock.release()
            raise

    # ------------------------------------------------------------ for the event loop

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn` in the writer's transaction; durable when this returns.

        `fn` runs in the writer's thread, must not commit, and should take well under a millisecond. What it
        raises comes back here and undoes only its own part. Raises Refusal(audit_unavailable) when latched,
        when the queue is full, or when the commit takes too long.
        """
        result: T = await self.submit(None, fn)
        return result

    def write_soon(self, fn: Callable[[sqlite3.Connection], object]) -> None:
        """Run `fn` with the next commit, at most about 20 ms away. Raises Refusal(audit_unavailable)."""
        self.submit_soon(None, fn)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn` on a read-only connection in another thread; sees what is committed."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, fn)

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
        self._wal.truncate()

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
        self._lock.release()

    def _check(self, lane: int) -> None:
        if self.latched is not None:
            raise _refused(self.latched)
        if self._closed:
            raise _refused("the gateway is stopping")
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
                future.set_exception(_refused(f"the disk took longer than {self._timeout_s:g} s"))
        self._timer = None
        if deadlines and self._loop is not None:
            self._timer = self._loop.call_later(self._timeout_s / 4, self._expire)

    # ------------------------------------------------------------ in the threads

    def _read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        if self._reader is None:
            self._reader = open_for_reading(self.path)
        return fn(self._reader)

    def _join(self) -> None:
        self._thread.join()
        self._readers.shutdown()
        self._wal.stop()
        if self._reader is not None:
            self._reader.close()
        try:
            if self.latched is None:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:  # the log is whole without it: the next start reads the WAL
            _log.warning("the write-ahead log stays for the next start: %s", error)
        finally:
            self._connection.close()

    def _run(self) -> None:
        take = self._queue.get
        going = True
        while going:
            job = take()
            if job is None:
                return
            batch = [job]
            going = self._gather(batch)
            for job in batch:
                self._taken[job.lane] += 1
            self._commit(batch)
            self.commits += 1
            if self.commits % _POKE_EVERY == 0:
                self._wal.poke()

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
        began_s = time.monotonic()
        try:
            outcomes = self._transact(batch)
            if self.on_commit is not None and self.latched is None:
                self.on_commit(len(batch), time.monotonic() - began_s)
        except sqlite3.Error as error:
            if self.latched is None:
                batch = self._again(batch)
            outcomes = [_refused(f"the database said: {error}")] * len(batch)
        except Exception as error:  # noqa: BLE001 - a fault of ours: told to all, and whatever it left behind must not become durable
            self.latch(f"a fault in the writer: {error!r}")
            self._roll_back()
            outcomes = [_refused(f"a fault in the writer: {error!r}")] * len(batch)
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
        """The file was only busy: what already happened is tried again until it is written; the rest."""
        if self._closed:  # there is no later
            return batch
        for job in batch:
            if job.lane == _CERTAIN:
                self._taken[_CERTAIN] -= 1
                self._queue.put(job)
        return [job for job in batch if job.lane != _CERTAIN]

    def _transact(self, batch: list[_Job]) -> list[Any]:
        """Write the batch as one transaction. Raises sqlite3.Error, latched unless the file was only busy."""
        if self.latched is not None:
            return [_refused(self.latched)] * len(batch)
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if not is_busy(error):
                self.latch(f"the database said at the start of a commit: {error}")
            raise
        outcomes: list[Any] = []
        groups: list[Group] = []
        try:
            at = 0
            while at < len(batch):
                group = batch[at].group
                if group is None:
                    outcomes.append(self._run_one(batch[at].item))
                    at += 1
                    continue
                end = at + 1
                while end < len(batch) and batch[end].group is group:
                    end += 1
                outcomes += group.apply(connection, [job.item for job in batch[at:end]])
                if group not in groups:
                    groups.append(group)
                at = end
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self.latch(f"the database said at a commit: {error}")
            self._roll_back()
            raise
        for group in groups:
            group.committed()
        return outcomes

    def _run_one(self, fn: Callable[[sqlite3.Connection], Any]) -> Any:
        connection = self._connection
        connection.execute("SAVEPOINT part")
        try:
            value = fn(connection)
        except Exception as error:
            if is_disk_error(error) or not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO part")
            value = error
        connection.execute("RELEASE part")
        return value

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:  # latched already; SQLite undoes it when the file is next opened
            _log.warning("the failed commit could not be rolled back: %s", error)


def _refused(reason: str) -> Refusal:
    return Refusal("audit_unavailable", f"Nothing can be recorded, so nothing may happen: {reason}.", retry_after_s=5)


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
