"""A kernel without Landlock, as a process finds it: a seccomp filter answers its system calls with ENOSYS.

What a container's seccomp profile does, too.
"""

from __future__ import annotations

import ctypes
import errno
import struct

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _AT_LEAST, _AT_MOST, _RETURN = 0x20, 0x35, 0x25, 0x06  # BPF: word at offset, jumps >= and >, return
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_FIRST, _LAST = 444, 446


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_landlock() -> None:
    """From here on this process and its children have no Landlock. For `preexec_fn`."""
    code = b"".join(
        struct.pack("=HBBI", *one)
        for one in (
            (_LOAD, 0, 0, 0),  # the number of the system call
            (_AT_LEAST, 0, 2, _FIRST),
            (_AT_MOST, 1, 0, _LAST),
            (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(_Program(len(code) // 8, code)), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the filter is not taken")
