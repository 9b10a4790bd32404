"""What this system can enforce on a tool server, in sentences for its operator."""

from __future__ import annotations

import errno
import sys
from typing import Literal, NamedTuple

from gateway.upstreams.confinement import landlock

Mode = Literal["required", "best_effort", "off"]

LEAST_ABI = 3  # before it, a confined process can still truncate files outside (Linux 6.2)
SCOPED_ABI = 6  # from it on, it can't signal processes outside, nor reach their abstract sockets (Linux 6.12)


class Support(NamedTuple):
    """`landlock`: its version, 0 where there is none. `shortfall`: what keeps servers from being confined fully."""

    landlock: int
    shortfall: str | None


def support() -> Support:
    """Ask the system; cheap, and always the same answer for one process."""
    version, number = landlock.probe()
    if version >= LEAST_ABI:
        return Support(version, None)
    if version:
        return Support(
            version,
            f"the Landlock of this kernel is too old (ABI {version}, Linux 6.2 brings {LEAST_ABI}) to keep a tool"
            " server from truncating files outside its folders",
        )
    if sys.platform != "linux":
        return Support(0, "only Linux has Landlock, so a tool server reads and writes what the gateway's user can")
    why = "is not switched on" if number == errno.EOPNOTSUPP else "is missing or forbidden here"
    return Support(
        0,
        f"Landlock {why} (Linux 5.13 or newer, `landlock` in the kernel's lsm= list, allowed by the container's seccomp"
        " profile), so a tool server reads and writes what its user can",
    )
