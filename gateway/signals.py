"""What replicas tell each other at once, over Redis: something changed, look. Never what it is now.

Replicas of one installation hear each other, and nobody else on the same Redis does.

Owns: one connection that listens and one that tells. Never does: carry state, or be needed for anything to be right;
what a lost signal would have told is found within a moment by looking at the database. Fails open for that reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from redis.asyncio import Redis

from gateway.errors import Refusal
from gateway.limits.exchange import FAULTS, fault

QUEUE_LIMIT = 10_000
_TIMEOUT_S = 2.0
_PAUSE_S = 0.25

log = structlog.get_logger("gateway.signals")

Handler = Callable[[str], Awaitable[None]]


class Signals:
    """Tells and hears `topic:what`. Handlers run one after another, in the order in which things were told."""

    def __init__(self, url: str, replica: str) -> None:
        self.handlers: dict[str, Handler] = {}
        self.on_gap: Callable[[], Awaitable[None]] | None = None
        """Called after signals may have been missed."""
        self.is_connected = False
        self.dropped = 0
        self._is_stopping = False
        self._away: str | None = None  # why nothing is heard, as last logged
        self._channel = ""
        self._replica = replica
        self._redis = Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, health_check_interval=0
        )
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(QUEUE_LIMIT)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, installation: str) -> None:
        """Begin to listen and to tell, among the replicas of this installation."""
        self._channel = f"gateway:signals:{installation}"
        self._tasks = [
            asyncio.create_task(self._keep_listening(), name="signals-in"),
            asyncio.create_task(self._keep_telling(), name="signals-out"),
        ]

    async def stop(self) -> None:
        """Tell what is queued, then end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TIMEOUT_S):
                await self._outgoing.join()
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:  # a client library may take a cancelling for its own time-out; nobody waits for that for ever
            await asyncio.wait(self._tasks, timeout=2 * _TIMEOUT_S)
        await self._redis.aclose()

    def tell(self, topic: str, what: str = "") -> None:
        """Let all other replicas look at something. Raises nothing; what does not fit is dropped and counted."""
        try:
            self._outgoing.put_nowait(f"{self._replica} {topic} {what}")
        except asyncio.QueueFull:
            self.dropped += 1

    async def _keep_telling(self) -> None:
        while True:
            message = await self._outgoing.get()
            try:
                await self._redis.publish(self._channel, message)
            except FAULTS as error:
                self.dropped += 1
                log.warning("signal_not_sent", reason=fault(error))
            finally:
                self._outgoing.task_done()

    async def _keep_listening(self) -> None:
        while not self._is_stopping:
            try:
                async with self._redis.pubsub() as heard:
                    await heard.subscribe(self._channel)
                    is_asked = False
                    while not self._is_stopping:
                        message = await heard.get_message(timeout=_TIMEOUT_S)
                        if message is not None:
                            is_asked = False
                            await self._take(message)
                        elif is_asked:
                            raise TimeoutError
                        else:  # silent for a while: is the connection still one?
                            is_asked = True
                            await heard.ping()
            except FAULTS as error:
                self.is_connected = False
                if self._away != fault(error):  # also where it never was connected, as without the right to listen
                    self._away = fault(error)
                    log.warning("signals_away", reason=self._away)
            await asyncio.sleep(_PAUSE_S)

    async def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "subscribe":  # only now it is known that Redis allows it; again, where the client had to connect anew
                self.is_connected = True
                self._away = None
                await self._look_around()
            case "message":
                await self._heard(message["data"])
            case _:  # the answer to a ping
                pass

    async def _look_around(self) -> None:
        if self.on_gap is None:
            return
        try:
            await self.on_gap()
        except Exception:
            log.exception("signal_fault", topic="gap")

    async def _heard(self, message: bytes) -> None:
        sender, _, told = message.decode(errors="replace").partition(" ")
        topic, _, what = told.partition(" ")
        handler = self.handlers.get(topic)
        if sender == self._replica or handler is None:
            return
        try:
            await handler(what)
        except Refusal as refusal:  # the database can't be asked now; who looks by itself finds it
            log.warning("signal_not_followed", topic=topic, code=refusal.code, message=refusal.message)
        except Exception:
            log.exception("signal_fault", topic=topic)
