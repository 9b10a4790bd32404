"""Gives up every privilege for good: another user, no capabilities, none to be gained by executing a program.

Capabilities matter beside Landlock: with CAP_PERFMON or CAP_SYS_ADMIN a process reads every other process's
`/proc/<pid>/environ`, whatever its Landlock rules say (Linux, mm_access).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Sequence

_PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 28, 38, 47
_AMBIENT_CLEAR_ALL = 4
_NO_ROOT_LOCKED = 0b11  # user 0 gains nothing at exec, for good
_VERSION_3 = 0x20080522
_MOST_CAPABILITIES = 64


def become(user: int, group: int, groups: Sequence[int]) -> None:
    """Change to another user for good. Raises PermissionError where this one may not."""
    os.setgroups(list(groups))
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def limit() -> None:
    """Empty the sets from which later programs could regain capabilities; before `become`, while that is possible."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    # Who lacks CAP_SETPCAP can't change these two; `drop` then suffices, since no_new_privs keeps them from mattering.
    libc.prctl(_PR_SET_SECUREBITS, _NO_ROOT_LOCKED, 0, 0, 0)
    for capability in range(_MOST_CAPABILITIES):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break


def drop() -> None:
    """Drop all capabilities and the way to new ones. Raises OSError where one remains."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs can't be set")
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice, for the lower and the upper 32
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "its capabilities can't be dropped")
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    if libc.capget(header, sets) != 0 or any(sets):
        raise OSError(errno.EPERM, "it still has capabilities")
