"""Files that must survive a power cut whole: old content or new, never half."""

from __future__ import annotations

import os
from pathlib import Path


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.write(descriptor, data[done:])


def replace_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put `data` in place of the file: temporary file, fsync, rename, fsync of the folder. Raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    _sync_folder(path.parent)


def create_durably(path: Path, data: bytes) -> None:
    """A new file that only its owner can read; raises FileExistsError, OSError."""
    if path.exists():
        raise FileExistsError(path)
    replace_durably(path, data, 0o600)
