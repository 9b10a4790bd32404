"""One data directory belongs to one running gateway: a lock on a file, released by the kernel at any end."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from gateway.errors import Refusal

_NAME = "gateway.lock"
_TRIES = 20
_PAUSE_S = 0.05


class DirectoryLock:
    """An exclusive flock on DATA_DIR/gateway.lock; the file holds the owner's process id for people."""

    def __init__(self, data_dir: Path) -> None:
        """Take the lock or raise Refusal(store_unavailable).

        Waits up to a second: `is_held` of a verifier takes the lock for an instant, and a predecessor that was
        told to stop may be in its last steps.
        """
        path = data_dir / _NAME
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for left in reversed(range(_TRIES)):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if left == 0:
                    owner = os.read(self._file, 32).decode("ascii", "replace").strip() or "unknown"
                    os.close(self._file)
                    raise Refusal(
                        "store_unavailable",
                        f"The data directory {data_dir} is in use by another gateway (process {owner}): "
                        "stop that one, or set GATEWAY_DATA_DIR to another directory.",
                    ) from None
                time.sleep(_PAUSE_S)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the directory free. Calling it twice does no harm."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def is_held(data_dir: Path) -> bool:
    """Whether a gateway runs on this data directory now."""
    try:
        file = os.open(data_dir / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
