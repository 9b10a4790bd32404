"""Keeps secrets out of the environment block that the kernel shows to others (`/proc/<pid>/environ`, `ps e`).

That block is written at exec and never changes, so a process that starts with secrets in it shows them until it ends.
`hide` therefore executes the same command again with only the variables that an interpreter needs before it runs any
code, and hands everything else over in a pipe. Afterwards `os.environ` is complete again, on the heap only: references,
reloads, litellm and OpenTelemetry read it as before. Standard library only: this runs before anything else is imported.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator, Mapping

PIPE = "GATEWAY_ENVIRONMENT_PIPE"
"""Names the descriptor to a process that was started with a clean environment."""

_PR_SET_DUMPABLE = 4
_VISIBLE = frozenset(
    (
        # Read by the dynamic loader, libc or the interpreter before the first line of ours; none of them a secret.
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "PWD", "TMPDIR", "TZ", "LANG", "LANGUAGE"),
        *("LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LC_COLLATE", "LC_NUMERIC", "LC_TIME", "LC_MONETARY"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "LD_BIND_NOW", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_CONF"),
        *("DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "__PYVENV_LAUNCHER__"),
        *("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONSTARTUP", "PYTHONOPTIMIZE"),
        *("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONHASHSEED", "PYTHONUTF8"),
        *("PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONFAULTHANDLER", "PYTHONMALLOC", "PYTHONTRACEMALLOC"),
        *("PYTHONASYNCIODEBUG", "PYTHONCOERCECLOCALE", "PYTHONIOENCODING", "PYTHONNOUSERSITE", "PYTHONUSERBASE"),
        *("PYTHONINTMAXSTRDIGITS", "PYTHONNODEBUGRANGES", "PYTHONPERFSUPPORT", "PYTHONPLATLIBDIR", "PYTHONVERBOSE"),
        *("OPENSSL_CONF", "OPENSSL_MODULES", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    )
)


class EnvironmentTooLargeError(Exception):
    """The variables do not fit into a pipe; the message says what to do."""


def hide() -> None:
    """Execute this command again with a clean environment, unless that has been done or there is nothing to hide.

    Then forbid others to look into this process. Returns with a complete `os.environ`. Raises EnvironmentTooLargeError,
    OSError.
    """
    if PIPE in os.environ:
        take()
    else:
        visible, hidden = _split(os.environ)
        if hidden:
            reading = _pipe_with(hidden)
            os.set_inheritable(reading, True)
            os.execve(  # noqa: S606 - ourselves
                sys.executable, [sys.executable, *sys.orig_argv[1:]], visible | {PIPE: str(reading)}
            )
    forbid_inspection()


def take() -> None:
    """Complete `os.environ` from the pipe that this process was started with; does nothing where there is none."""
    descriptor = os.environ.pop(PIPE, None)
    if descriptor is None:
        return
    with open(int(descriptor), "rb") as stream:  # noqa: PTH123 - a descriptor, not a path
        for item in stream.read().split(b"\0"):
            name, _, value = item.partition(b"=")
            if name:
                os.environ[os.fsdecode(name)] = os.fsdecode(value)


@contextlib.contextmanager
def of_child(environ: Mapping[str, str] = os.environ) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """`environ` for a child that calls `take`: what to start it with, and the descriptors that it must inherit."""
    visible, hidden = _split(environ)
    reading = _pipe_with(hidden)
    try:
        yield visible | {PIPE: str(reading)}, (reading,)
    finally:
        os.close(reading)


def forbid_inspection() -> None:
    """On Linux: no core dumps, and nobody without CAP_SYS_PTRACE reads this process's memory, environment or
    descriptors or attaches to it. Lost at exec, so each process has to ask for it."""
    if sys.platform == "linux":
        import ctypes  # late: the process that is about to be replaced does not need it

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _split(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    visible = {name: value for name, value in environ.items() if name in _VISIBLE}
    hidden = {name: value for name, value in environ.items() if name not in _VISIBLE and name != PIPE}
    return visible, hidden


def _pipe_with(variables: Mapping[str, str]) -> int:
    """The reading end of a pipe that holds the variables, and whose writing end is closed."""
    data = b"\0".join(os.fsencode(f"{name}={value}") for name, value in variables.items())
    reading, writing = os.pipe()
    try:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # more than the system allows: the write below falls short
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, max(len(data), 65_536))
        os.set_blocking(writing, False)
        if os.write(writing, data) < len(data):
            raise EnvironmentTooLargeError(
                f"The environment has {len(data)} bytes of variables, more than a pipe of this system holds; unset what"
                " the gateway does not need."
            )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return reading
