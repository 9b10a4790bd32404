"""What the gateway stands on: everything in its own data directory, or engines that it shares with other replicas.

Owns: which implementation of store, log and limits is built, in which order they begin and end, and what replicas tell
each other. The rest of the gateway is the same on both. Never does: decide anything about an action.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from gateway.approvals import Approvals, Sealing
from gateway.audit.appending import Appending
from gateway.audit.comparing import suspended
from gateway.audit.log import AuditLog
from gateway.audit.reaper import Lost, Settle
from gateway.audit.source import FileSource, Source
from gateway.clock import Clock, Ids
from gateway.config import Config
from gateway.identity.registry import Registry
from gateway.limits import Limits, MemoryLimits, table_of
from gateway.limits.spend import SpendTable
from gateway.limits.windows import names_in, zone_suffix
from gateway.process import Process
from gateway.store import Writer
from gateway.store.interface import Connection

Change = Callable[[Connection], None]


class Footing(Protocol):
    """Both kinds. `open` first, then `begin`; `end` closes what `open` opened."""

    replica: str
    """This process's id among replicas; '' where there are none."""
    writer: Writer

    @property
    def limits(self) -> Limits: ...

    @property
    def keys_dir(self) -> Path: ...

    def source(self) -> Source:
        """Where the trail can be read from, to verify it."""
        ...

    async def open(self, config: Config) -> Appending:
        """Open the store and the log. Raises Refusal with the reason why the gateway can't run."""
        ...

    async def begin(self, settle: Settle, lost: Lost) -> frozenset[str]:
        """Start the log, end what a former process left open, and take over what was spent.

        Rows are compared with the log: the agents that it says are suspended.
        """
        ...

    async def join(
        self,
        registry: Registry,
        approvals: Approvals,
        told: Callable[[], dict[str, str]],
        doubt: Callable[[str], None],
    ) -> None:
        """From here on this process acts with the others: the register and the cases are loaded.

        `told` says what they may know of this one. `doubt` hears of an agent that was suspended, as it seems, where the
        database can't be asked.
        """
        ...

    def riding(self, topic: str, also: Change | None) -> Change | None:
        """`also`, and with it in the transaction what tells others that something of `topic` was changed.

        Raises there OutdatedError, where another replica changed it since this one last read it.
        """
        ...

    def told(self, topic: str, *, suspended: str | None = None) -> None:
        """Something of `topic` was changed, durably; `suspended` names an agent that was."""
        ...

    async def look_again(self) -> bool:
        """Whether others changed something that this process had not seen yet; it has by now."""
        ...

    def serving_at(self, url: str) -> None:
        """Where this process is reached, for people."""
        ...

    async def replicas(self) -> list[dict[str, Any]]:
        """The replicas that run and those that ended lately, with what they run; none where there is one gateway."""
        ...

    async def tick(self) -> None:
        """What is due about every half second."""
        ...

    def faults(self) -> dict[str, tuple[Callable[[], str | None], bool]]:
        """What can be wrong with the engines, by name: a sentence or None, and whether nothing goes on without it."""
        ...

    async def end(self, settle: Settle, lost: Lost) -> None:
        """Flush and sign the log, give back what is held, close."""
        ...


class Embedded:
    """One process, one data directory."""

    replica = ""

    def __init__(self, process: Process, clock: Clock, ids: Ids) -> None:
        self.keys_dir = process.data_dir / "keys"
        self.limits = MemoryLimits(clock)
        self._process = process
        self._clock = clock
        self._ids = ids

    def source(self) -> FileSource:
        """See `Footing.source`."""
        return FileSource(self._process.data_dir)

    async def open(self, config: Config) -> AuditLog:
        """See `Footing.open`."""
        self.limits.reconfigure(table_of(config.limits))  # in whose time zone the windows are named
        self.writer = Writer.open(self._process.data_dir)
        self.log = AuditLog.open(
            self._process.data_dir,
            self.writer,
            origin=config.audit.origin,
            capture=config.audit.capture,
            payload_cap_bytes=config.audit.payload_cap_bytes,
            env=config.environment,
            clock=self._clock,
            ids=self._ids,
        )
        self.limits.spend_table = SpendTable(self.log.macs)
        self.log.recorder.count_in(zone_suffix(self.limits.windows().zone), names_in)
        return self.log

    async def begin(self, settle: Settle, lost: Lost) -> frozenset[str]:
        """See `Footing.begin`."""
        await self.log.start(settle, lost)
        recorded = await self.log.compare_rows()
        windows, table = self.limits.windows(), self.limits.spend_table
        spent = recorded.spent((windows.day, windows.month))
        self.limits.restore(await self.writer.read(lambda db: table.read(db, windows, spent)))
        return suspended(recorded)

    async def join(
        self,
        registry: Registry,
        approvals: Approvals,
        told: Callable[[], dict[str, str]],
        doubt: Callable[[str], None],
    ) -> None:
        """See `Footing.join`: there are no others."""

    def riding(self, topic: str, also: Change | None) -> Change | None:
        """See `Footing.riding`."""
        return also

    def told(self, topic: str, *, suspended: str | None = None) -> None:
        """See `Footing.told`."""

    async def look_again(self) -> bool:
        """See `Footing.look_again`."""
        return False

    def serving_at(self, url: str) -> None:
        """See `Footing.serving_at`: nobody else asks."""

    async def replicas(self) -> list[dict[str, Any]]:
        """See `Footing.replicas`."""
        return []

    async def tick(self) -> None:
        """See `Footing.tick`."""

    def faults(self) -> dict[str, tuple[Callable[[], str | None], bool]]:
        """See `Footing.faults`."""
        return {}

    async def end(self, settle: Settle, lost: Lost) -> None:
        """See `Footing.end`."""
        await self.log.stop(settle, lost)
        await self.writer.close()


def sealing(footing: Footing) -> Sealing:
    """What cases keep is sealed with; replicas share the key."""
    return Sealing.open(footing.keys_dir, create=not footing.replica)


def host_name() -> str:
    """This process for people: where it runs and which it is."""
    return f"{socket.gethostname()}/{os.getpid()}"


def footing_of(process: Process, clock: Clock, ids: Ids) -> Footing:
    """The footing that the process's environment asks for."""
    if not process.is_scaled:
        return Embedded(process, clock, ids)
    from gateway.shared_footing import Shared

    return Shared(process, clock, ids)
