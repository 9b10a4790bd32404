"""What one replica says to Redis about limits, and what it hears: one question at a time, each with its number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as TookTooLong

from gateway.limits.scripts import ASK, LIFE_S, MINUTE_LIFE_S, SILENT, TELL

TIMEOUT_S = 1.0
TOKENS_PER_MINUTE = "tokens_per_minute"
OPEN_TOKENS = "open_tokens"
"""What replicas have only reserved of the tokens of a minute, or taken ahead: kept by replica, as grants are."""
_PAGE = 500
_LIVES_S = {"minute": 3_600, "day": 3 * 86_400}

FAULTS = (RedisError, OSError, TimeoutError)


class AwayError(Exception):
    """Redis did not answer, or knows nothing of this generation. Says why."""


class Counter(NamedTuple):
    """A counter that replicas share. `window` is '' where it has none."""

    tenant: str
    level: str
    counter: str
    window: str


class Correction(NamedTuple):
    """What was counted by the minute in a second was more, or less."""

    counter: Counter
    second: int
    amount: int


class Want(NamedTuple):
    """What is to be granted, or taken ahead of this minute: `need` or nothing, up to `want` where there is room."""

    counter: Counter
    limit: int
    mine: int
    need: int
    want: int


class NoRoom(NamedTuple):
    """The item for which there is no room, what the others hold of it, what they may give back of that, and of what is
    counted by the minute (second, taken by all), oldest first."""

    item: int
    others: int
    others_open: int
    seconds: tuple[tuple[int, int], ...]


def life_s(counter: Counter) -> int:
    """How long a counter is kept that nobody touches: over its window, and a good while."""
    return _LIVES_S.get(counter.window.partition(":")[0], LIFE_S)


def fault(error: BaseException) -> str:
    """What is wrong with Redis, of one of `FAULTS`, and what to check. Its own words may say who and where, which is
    not for callers."""
    name = type(error).__name__
    if _does_refuse(error):
        return f"Redis refuses ({name}); check {_what_to_check(error)}"
    return f"Redis can't be reached ({name}); check that it runs and that GATEWAY_REDIS_URL leads to it"


def _does_refuse(error: BaseException) -> bool:
    # The client library counts a wrong password among the lost connections.
    return isinstance(error, (ResponseError, AuthenticationError, AuthorizationError))


def _what_to_check(error: BaseException) -> str:
    if isinstance(error, (AuthenticationError, AuthorizationError, AuthenticationWrongNumberOfArgsError)):
        return "the user and the password in GATEWAY_REDIS_URL"
    if isinstance(error, NoPermissionError):
        return "what its user in GATEWAY_REDIS_URL may do: all keys gw:*, all channels gateway:signals:*"
    if isinstance(error, OutOfMemoryError):
        return "its memory, and raise its maxmemory"
    if isinstance(error, ReadOnlyError):
        return "that GATEWAY_REDIS_URL leads to the primary, not to a follower"
    return "its log, its disk, and whether it misses followers (min-replicas-to-write)"


class Exchange:
    """One replica's talk with Redis. Who uses it takes care that it is one question at a time."""

    def __init__(self, url: str, replica: str) -> None:
        self.generation: str | None = None
        """The filling of Redis that this replica has joined; None: nothing may be asked for."""
        self.replica = replica
        self.installation = ""
        """Whose counters these are; to be told before anything is asked."""
        self.redis: Any = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._ask = self.redis.register_script(ASK)
        self._tell = self.redis.register_script(TELL)
        self._seq = 0

    def key(self, *parts: str) -> str:
        """A key of this installation; all of them live on one node of a cluster."""
        assert self.installation
        return ":".join((f"gw:{{{self.installation}}}", *parts))

    def counter_key(self, generation: str, counter: Counter) -> str:
        """Where a counter stands."""
        return self.key(generation, msgspec.json.encode(counter).decode())

    async def ask(
        self, wants: Sequence[Want], corrections: Sequence[Correction], now_s: int
    ) -> list[tuple[int, int]] | NoRoom:
        """(granted, held by others) for each item; all of them or none. Raises AwayError."""
        generation = self._joined()
        keys = [self.counter_key(generation, want.counter) for want in wants]
        values: list[Any] = [len(wants)]
        for counter, limit, mine, need, want in wants:
            of_minute = counter.counter.endswith("_per_minute")
            if counter.counter == TOKENS_PER_MINUTE:
                keys.append(self.counter_key(generation, counter._replace(counter=OPEN_TOKENS)))
                kind = "tokens"
            else:
                kind = "minute" if of_minute else "grant"
            values += [kind, limit, mine, need, want]
            values.append(MINUTE_LIFE_S if of_minute else life_s(counter))
        answer = await self._say(self._ask, self.key("generation"), generation, corrections, now_s, keys, values)
        if answer[0] == "no":
            told = [int(one) for one in answer[4:]]
            seconds = tuple(zip(told[::2], told[1::2], strict=True))
            return NoRoom(int(answer[1]), int(answer[2]), int(answer[3]), seconds)
        return [(int(answer[at]), int(answer[at + 1])) for at in range(1, len(answer), 2)]

    async def tell(
        self,
        facts: Sequence[tuple[Counter, int]],
        corrections: Sequence[Correction],
        now_s: int,
        *,
        candidate: str | None = None,
    ) -> list[int]:
        """What the others hold of each. `candidate`: a filling that is being made. Raises AwayError."""
        generation = candidate or self._joined()
        place = self.key("generation" if candidate is None else "next")
        heard: list[int] = []
        for at in range(0, max(1, len(facts), len(corrections)), _PAGE):
            page = facts[at : at + _PAGE]
            keys = [self.counter_key(generation, counter) for counter, _ in page]
            values = [text for counter, value in page for text in (str(value), life_s(counter))]
            answer = await self._say(self._tell, place, generation, corrections[at : at + _PAGE], now_s, keys, values)
            heard += [int(one) for one in answer[1:]]
        return heard

    async def is_first(self, counter: Counter) -> bool:
        """Whether nobody has told this yet; from here on it is told. Raises RedisError."""
        place = self.key("told", msgspec.json.encode(counter).decode())
        return bool(await self.redis.set(place, self.replica, nx=True, ex=life_s(counter)))

    async def silence(self, replica: str) -> None:
        """Hear nothing of an ended replica from here on."""
        await self.redis.set(self.key("seq", replica), SILENT, ex=LIFE_S)

    def _joined(self) -> str:
        if self.generation is None:
            raise AwayError("its counters are being filled again from the database")
        return self.generation

    async def _say(
        self,
        script: Any,
        place: str,
        generation: str,
        corrections: Sequence[Correction],
        now_s: int,
        keys: list[str],
        values: list[Any],
    ) -> list[Any]:
        all_keys = [
            place,
            self.key("seq", self.replica),
            *(self.counter_key(generation, one.counter) for one in corrections),
        ]
        head: list[Any] = [now_s, len(corrections)]
        for one in corrections:
            head += [one.second, one.amount]
        for is_last in (False, True):
            self._seq += 1
            try:
                answer: list[Any] = await script(
                    keys=all_keys + keys, args=[generation, self.replica, self._seq, *head, *values]
                )
                break
            except FAULTS as error:
                # A connection that was idle when the server went is found broken only now: once more, on a new one.
                # Not where corrections go along: they are no absolute values, and may have been heard.
                if is_last or corrections or not _is_broken(error):
                    raise AwayError(fault(error)) from error
        if answer[0] == "away":
            self.generation = None
            raise AwayError("Redis has lost its counters, and they are being filled again from the database")
        if answer[0] == "late":
            raise AwayError("Redis no longer listens to this replica")
        return answer


def _is_broken(error: BaseException) -> bool:
    if _does_refuse(error) or isinstance(error, (TookTooLong, TimeoutError)):
        return False
    return isinstance(error, (NoConnection, OSError))
