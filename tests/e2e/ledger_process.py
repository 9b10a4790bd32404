"""The quickstart's ledger as a process that starts at once: forked from one that has imported what it needs.

Importing the MCP SDK takes longer than most tests that want a ledger. What the command itself does with its arguments
and its standard input is tested in `tests/quickstart/test_ledger.py`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path

_MODULE = "gateway.quickstart.ledger"
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([_MODULE])


class LedgerProcess:
    """`python -m gateway.quickstart.ledger`, until it is closed or dies of a fault."""

    def __init__(self, db: Path, *faults: str, token: str, port: int = 0) -> None:
        words = ["--db", str(db), "--port", str(port), "--until-stdin-closes"]
        words += [word for fault in faults for word in ("--fault", fault)]
        told, tells = _context.Pipe(duplex=False)
        ends, self._alive = _context.Pipe(duplex=False)
        self._process = _context.Process(target=_run, args=(words, token, ends, tells), daemon=True)
        self._process.start()
        ends.close()
        tells.close()
        with told, os.fdopen(os.dup(told.fileno())) as lines:
            line = lines.readline()
        assert line, "the ledger did not start"
        self.port: int = json.loads(line)["port"]

    def close(self, patience_s: float) -> None:
        """End it; does nothing where it has ended."""
        self._alive.close()
        self._process.join(patience_s)
        assert self._process.exitcode is not None, "the ledger did not end"


def _run(words: list[str], token: str, ends: Connection, tells: Connection) -> None:
    from gateway.quickstart.ledger import main

    os.environ["LEDGER_TOKEN"] = token
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor, standard in ((ends.fileno(), 0), (tells.fileno(), 1), (null, 2)):
        os.dup2(descriptor, standard)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    main(words)
