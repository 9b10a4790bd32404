"""Landlock, the kernel's own sandbox for unprivileged processes, by its three system calls.

Source: Linux, Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h. A ruleset allows what its
rules name, and denies every other access of the kinds that it handles; a process can only ever restrict itself further.
Paths that a rule names are hierarchies: there is no way to take something below one out again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterable

# System call numbers of every architecture that Python runs on but Alpha.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST = (1 << 13) - 1  # what ABI 1 handles
_SINCE = {2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # other rights are an error on a file
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1

READ = "read"
WRITE = "write"
DEVICE = "device"
"""What a rule allows: to read and execute; everything; or to read and write a device, and nothing else."""

Rule = tuple[str, str]
"""An absolute path without symbolic links, and one of READ, WRITE, DEVICE."""


def abi() -> int:
    """The version of Landlock that this kernel offers; 0 where there is none, or this process may not use it."""
    return probe()[0]


def probe() -> tuple[int, int]:
    """The version, or 0 and the error number (ENOSYS: not built in or forbidden; EOPNOTSUPP: not switched on)."""
    if sys.platform != "linux":
        return 0, errno.ENOSYS
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG), 0
    except OSError as error:
        return 0, error.errno or errno.ENOSYS


def handled(version: int) -> int:
    """The kinds of access to files that a version can deny."""
    return _FIRST | sum(right for since, right in _SINCE.items() if version >= since)


class Ruleset:
    """An allow-list that is being made. Belongs to one thread; `enforce` confines that thread for ever."""

    def __init__(self, version: int) -> None:
        """Raises OSError."""
        self._handled = handled(version)
        attributes = struct.pack("=Q", self._handled)
        if version >= 4:
            attributes += struct.pack("=Q", 0)  # the network is not restricted
        if version >= 6:
            attributes += struct.pack("=Q", _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS)
        self._descriptor = _call(_CREATE_RULESET, attributes, len(attributes), 0)
        os.set_inheritable(self._descriptor, False)

    def allow(self, rules: Iterable[Rule]) -> None:
        """Allow what the rules name; one whose path does not exist is left out. Raises OSError."""
        for path, kind in rules:
            try:
                opened = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            try:
                self._allow(path, kind, opened)
            finally:
                os.close(opened)

    def enforce(self) -> None:
        """Restrict this thread. Raises OSError; needs no_new_privs, or CAP_SYS_ADMIN."""
        _call(_RESTRICT_SELF, self._descriptor, 0)
        os.close(self._descriptor)

    def _allow(self, path: str, kind: str, opened: int) -> None:
        _check_same(path, opened)
        mode = os.fstat(opened).st_mode
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, "a path of its rules became a symbolic link", path)
        rights = {
            READ: EXECUTE | READ_FILE | READ_DIR,
            WRITE: self._handled,
            DEVICE: READ_FILE | WRITE_FILE | TRUNCATE,
        }[kind]
        if not stat.S_ISDIR(mode):
            rights &= _OF_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights & self._handled, opened))
        _call(_ADD_RULE, self._descriptor, _PATH_BENEATH, rule, 0)


def _check_same(path: str, opened: int) -> None:
    """The path was chosen by another process a moment ago: nobody may have put a link into it since."""
    try:
        now = os.readlink(f"/proc/self/fd/{opened}")  # noqa: PTH115 - compared as text
    except OSError:
        return  # no /proc here
    if now != path:
        raise OSError(errno.ELOOP, "a path of its rules leads elsewhere by now", path)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    found: int = libc.syscall(ctypes.c_long(number), *words)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found
