"""The quickstart's ledger as a process of its own, for as long as somebody needs it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway import environment
from gateway.errors import Refusal
from gateway.process import child_environment


@contextlib.contextmanager
def ledger(folder: Path, token: str) -> Iterator[str]:
    """The ledger with its money in `folder`, open to whoever shows `token`: its address.

    It ends when we do, however that comes, since its standard input then closes.
    """
    module = [sys.executable, "-P", "-m", "gateway.quickstart.ledger"]
    with environment.of_child(child_environment() | {"LEDGER_TOKEN": token}) as (environ, descriptors):
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [*module, "--db", str(folder / "ledger.db"), "--port", "0", "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for the gateway, which still talks to the ledger while it stops
        )
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        if not line:
            raise Refusal("internal", "The quickstart's ledger did not start; its error stands above.")
        yield str(json.loads(line)["url"])
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
        child.kill()
        child.wait()
        child.stdout.close()
        assert child.stdin is not None
        child.stdin.close()
