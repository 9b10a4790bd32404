"""What this room is handed to change anything: the log that makes a change durable, and the store to read from.

A register decides on a change by what it has in memory. Where another replica was faster, memory is not what is stored:
then the change is neither made nor refused, but decided again on what is stored now.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from gateway.errors import Refusal
from gateway.store.interface import Connection

T = TypeVar("T")
P = ParamSpec("P")
Change = Callable[[Connection], None]

_TRIES = 20  # each that fails is another replica's success
# Of refusals, those that may come of not having seen yet what another replica did.
_OF_MEMORY = frozenset({"not_found", "conflict", "unauthenticated"})


class OutdatedError(Exception):
    """Another replica changed the register after this one had read it; nothing was written."""


async def nobody_else() -> bool:
    """`Register.catch_up` where there is one gateway."""
    return False


class Register:
    """Changes one at a time. A base of the registers."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.catch_up: Callable[[], Awaitable[bool]] = nobody_else
        """Takes over what other replicas changed, and says whether there was something; needs the turn."""


R = TypeVar("R", bound=Register)


def in_turn(
    change: Callable[Concatenate[R, P], Awaitable[T]],
) -> Callable[Concatenate[R, P], Coroutine[Any, Any, T]]:
    """A change of a register: one after another, and decided anew where another replica was faster.

    What it is given must bear being looked at twice.
    """

    @wraps(change)
    async def made(register: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(_TRIES):
            try:
                async with register.turn:
                    return await change(register, *args, **kwargs)
            except OutdatedError:
                await register.catch_up()
            except Refusal as refusal:
                if refusal.code not in _OF_MEMORY or not await register.catch_up():
                    raise
        raise Refusal(
            "conflict", "Other replicas change the same register all the time; try again in a moment.", retry_after_s=1
        )

    return made


class Journal(Protocol):
    """Appends one audit record and makes `also` in the same transaction; durable when it returns.

    `person` is who did it, None for the gateway itself (then `labels` says by what). What `also` raises comes
    back and neither record nor change is made. Raises Refusal(audit_unavailable), and OutdatedError where another
    replica changed the same register first.
    """

    async def __call__(
        self,
        type: str,  # noqa: A002 - the record's own field name
        *,
        tenant: str,
        person: str | None,
        subject: dict[str, Any],
        labels: dict[str, str],
        also: Change,
    ) -> None: ...


class Reads(Protocol):
    """Runs a function on a read-only connection."""

    async def read(self, fn: Callable[[Connection], T]) -> T: ...


async def warm() -> None:
    """Import what changes need, off the event loop (about a second, once)."""
    await asyncio.to_thread(importlib.import_module, "gateway.identity.rows")
