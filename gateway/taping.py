"""A model's stream while it is read: on tape, so that an answer whose tool calls wait for people can be kept whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.actions import ReplyStream
from gateway.errors import Refusal

# A larger answer is not kept, so what it proposes can't wait.
MAX_KEPT_BYTES = 4 * 1024 * 1024


class Tape:
    """Iterates a stream and remembers it, so that the answer can be kept once it is over."""

    def __init__(self, stream: ReplyStream) -> None:
        self._source = aiter(stream)
        self._taken = bytearray()  # a list of pieces would take forty times as much where they are small
        self._size = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._source)
        self._keep(chunk)
        return chunk

    def whole(self) -> bytes:
        """All that was read. Raises `too_large`."""
        check_size(self._size)
        return bytes(self._taken)

    def _keep(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= MAX_KEPT_BYTES:
            self._taken += chunk
        else:
            self._taken.clear()


def check_size(size: int) -> None:
    """Raises `too_large` for an answer that is not kept."""
    if size > MAX_KEPT_BYTES:
        raise Refusal(
            "too_large",
            f"The answer proposes a call that a person must approve, but with over {MAX_KEPT_BYTES} bytes it is too"
            " long to be kept until then; ask for a shorter one.",
            http_status=502,
        )


class KeptStream:
    """A kept answer, streamed as it came."""

    def __init__(self, body: bytes) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        """Nothing is open."""
