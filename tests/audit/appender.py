"""Run as a program: `kill` appends until it is killed, `full` until the disk is full; `intents` dies after five.

Prints what was acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

from gateway.audit import AuditLog
from gateway.errors import Refusal
from gateway.store import Writer
from tests.audit.house import ORIGIN, House


def say(line: str) -> None:
    """Unbuffered, so that what was said before a kill is there."""
    os.write(1, line.encode() + b"\n")


async def agent(house: House, log: AuditLog) -> None:
    """One agent that acts without a pause; says an action's id when its intent, and then its result, is durable."""
    while True:
        action = house.action()
        await log.append(house.intent(action))
        say(f"intent {action.id}")
        await log.append(house.result(action))
        say(f"result {action.id}")


async def main(mode: str, data_dir: str) -> None:
    """Start the log and let 64 agents act."""
    house = House(Path(data_dir))
    writer = Writer.open(house.data_dir)
    log = AuditLog.open(house.data_dir, writer, origin=ORIGIN)
    await log.start()
    say("started")
    if mode == "intents":
        await asyncio.gather(*(log.append(house.intent(house.action())) for _ in range(5)))
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    ends = await asyncio.gather(*(agent(house, log) for _ in range(64)), return_exceptions=True)
    for end in ends:
        if not isinstance(end, Refusal):
            raise SystemExit(f"not a refusal: {end!r}")
        say(f"refused {end.code}")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)  # the disk is well again, but what it lost is not known
    for _ in range(6):
        try:
            await log.append(house.intent(house.action()))
        except Refusal as refusal:
            say(f"refused {refusal.code}")
        else:
            raise SystemExit("written after a latch")
    say(f"latched {writer.latched}")
    if "abrupt" in sys.argv:
        await log.tick()
        os.kill(os.getpid(), signal.SIGKILL)
    await log.stop()
    await writer.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
