"""The folders that a confined server has to itself: a home that it keeps, and one for temporary files that it does not.

A home (`tool-servers/<server>` in the data directory) is where `npx` and `uvx` keep what they download. Temporary
folders lie where the system has them. One that a killed gateway left behind is removed by the next: whose lock can be
taken belongs to nobody any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(__name__)

_PREFIX = "gateway-tool-"


class Folders(NamedTuple):
    """Those of one run of a server. `lock` is a descriptor, held for as long as the run lasts."""

    home: Path
    temporary: Path
    lock: int

    def remove(self) -> None:
        """Remove the temporary folder; the home stays, unless it lies there. Doing so twice does nothing."""
        with contextlib.suppress(OSError):
            os.close(self.lock)
        _remove(_root_of(self.temporary))


def make(homes: Path, server: str, owner: tuple[int, int] | None) -> Folders:
    """The folders of a run; with `owner` (user, group) both are that user's, and the home is temporary too, since the
    data directory is closed to other users. Raises OSError."""
    _sweep()
    root, lock = _locked()
    temporary, home = root / "tmp", root / "home" if owner is not None else homes / server
    temporary.mkdir(mode=0o700)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if owner is not None:
        root.chmod(0o711)
        for folder in (temporary, home):
            os.chown(folder, *owner)
    return Folders(home.resolve(), temporary.resolve(), lock)


def _root_of(temporary: Path) -> Path:
    return temporary.parent


def _locked() -> tuple[Path, int]:
    while True:
        root = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.exists():  # else another gateway's sweep was faster
            return root, lock
        os.close(lock)


def _sweep() -> None:
    """Remove what gateways left that did not end orderly."""
    for root in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(root)
        except OSError:
            continue  # somebody's run
        finally:
            os.close(lock)


def _remove(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    if root.exists() and os.geteuid() != 0:  # root needs no mode, and could be led to change another file's
        for folder, inside, _ in os.walk(root):  # a server may have closed a folder of its own to itself
            for name in inside:
                with contextlib.suppress(OSError):
                    if not Path(folder, name).is_symlink():
                        Path(folder, name).chmod(0o700)
        shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        _log.warning("the temporary folder %s of a tool server can't be removed", root)
