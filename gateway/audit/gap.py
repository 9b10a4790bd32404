"""How many actions were refused while nothing could be recorded: a small file that works on a full disk.

Its bytes are reserved while the disk is well and overwritten in place later. Best effort by nature: what the file
can't tell, the `audit.gap` record says it does not know.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

_BYTES = 512


class Gap(msgspec.Struct, frozen=True):
    """`final`: counted to the end, so `refused` is exact; else it is a lower bound."""

    reason: str
    refused: int = 0
    final: bool = False


class GapFile:
    """DATA_DIR/audit/gap: blank while all is well."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Gap | None:
        """What the last run left; an unreadable file is a gap of unknown size."""
        try:
            text = self._path.read_bytes().strip()
        except FileNotFoundError:
            return None
        if not text:
            return None
        try:
            return msgspec.json.decode(text, type=Gap)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Gap("the file that kept the reason is damaged")

    def clear(self) -> None:
        """Reserve the bytes and blank them. Raises OSError."""
        self._put(b"")

    def note(self, gap: Gap) -> bool:
        """Keep `gap`; False if even that can't be written."""
        reason = gap.reason.encode("ascii", "replace").decode()[: _BYTES // 2].replace("\\", "/").replace('"', "'")
        try:
            self._put(msgspec.json.encode(Gap(reason, gap.refused, gap.final)))
        except OSError:
            return False
        return True

    def _put(self, text: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, text.ljust(_BYTES)[:_BYTES], 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
