"""Signs the tree's head, at most about a second after a record: first into the file, then into the database."""

from __future__ import annotations

import asyncio

from gateway.audit.anchor import Anchor
from gateway.audit.chain import Chain
from gateway.clock import Clock
from gateway.store import Writer
from gateway.store.interface import Connection
from gateway.verify.checkpoints import Checkpoint
from gateway.verify.notes import Signer
from gateway.verify.tree import Frontier

_SIGN_AFTER_S = 0.5  # with the tick and the writing of the file this stays under the promised second
_SIGN_LIMIT_S = 60.0


class Notary:
    """Signs only what is committed, and only as an extension of what it signed before.

    The tree it signs can only have grown since the last signature, because the frontier has no way back, and at
    start the frontier was held against the last signed checkpoint. A file that someone else touched latches.
    """

    def __init__(
        self, writer: Writer, chain: Chain, anchor: Anchor, signer: Signer, *, tenant: str, clock: Clock
    ) -> None:
        self.signed_size = 0
        self._writer = writer
        self._chain = chain
        self._anchor = anchor
        self._signer = signer
        self._tenant = tenant
        self._clock = clock
        self._since_s: float | None = None
        self._lock = asyncio.Lock()

    @property
    def unsigned(self) -> int:
        """Durable records that no checkpoint covers yet."""
        return self._chain.durable[0] - self.signed_size

    async def sign_if_due(self) -> None:
        """Sign if records have waited for half a second."""
        if not self.unsigned:
            self._since_s = None
            return
        now_s = self._clock.monotonic_s()
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s >= _SIGN_AFTER_S:
            self._since_s = None
            await self.sign()

    async def sign(self) -> None:
        """Sign what is committed now. Latches the writer if the checkpoint can't be kept."""
        async with self._lock:
            size, peaks = self._chain.durable
            if size <= self.signed_size or self._writer.latched is not None:
                return
            frontier = Frontier(size, peaks)
            checkpoint = Checkpoint(self._signer.verifier.name, size, frontier.root())
            note = checkpoint.sign(self._signer)
            try:
                async with asyncio.timeout(_SIGN_LIMIT_S):
                    await asyncio.to_thread(self._anchor.replace, note)
            except TimeoutError:
                self._writer.latch(f"the signed checkpoint could not be written within {_SIGN_LIMIT_S:g} s")
                return
            except OSError as error:
                self._writer.latch(f"the signed checkpoint could not be written ({error})")
                return
            self.signed_size = size
            row = (size, checkpoint.root, note, self._clock.now_ns())
            head = (self._tenant, self._chain.writer_id, size, frontier.to_bytes())

            def keep(connection: Connection) -> None:
                connection.execute("INSERT INTO checkpoint (size, root, note, ts_ns) VALUES (?, ?, ?, ?)", row)
                connection.execute(
                    "INSERT INTO log_head (tenant, writer, size, frontier) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (tenant) DO UPDATE SET writer = excluded.writer, size = excluded.size,"
                    " frontier = excluded.frontier",
                    head,
                )

            await self._writer.write(keep)
