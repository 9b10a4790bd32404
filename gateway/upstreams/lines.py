"""Lines out of a byte stream, bounded: what a child process writes can be of any length."""

from __future__ import annotations

KEPT_BYTES = 1000  # of a line that is too long


class Lines:
    """Cuts a byte stream into lines. Of a line that is too long only the start is kept."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._held = bytearray()
        self._cut = False  # the rest of the line is being dropped

    @property
    def size(self) -> int:
        """Bytes that wait for the end of their line."""
        return len(self._held)

    def cut(self) -> bytes:
        """Give up the line that is being read: its start; the rest is dropped when it comes."""
        start = bytes(self._held[:KEPT_BYTES])
        self._held.clear()
        self._cut = True
        return start

    def feed(self, chunk: bytes) -> list[tuple[bytes, bool]]:
        """The lines that `chunk` completes, and whether each is whole (False: only its start, said once)."""
        found: list[tuple[bytes, bool]] = []
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            if self._cut:
                self._cut = False
            elif len(self._held) + len(piece) > self._cap:
                found.append((bytes(self._held[:KEPT_BYTES]) + piece[:KEPT_BYTES], False))
            else:
                found.append((bytes(self._held) + piece, True))
            self._held.clear()
        if not self._cut:
            self._held += rest
            if len(self._held) > self._cap:
                found.append((bytes(self._held[:KEPT_BYTES]), False))
                self._held.clear()
                self._cut = True
        return found
