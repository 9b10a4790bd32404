"""The whole trail looked at once after start, beside the work: start-up itself reads only what came after the last
checkpoint.

Records only; payloads are left to `gateway audit verify`. Slow on purpose, so that nobody waits for it: it rests about
ten times as long as it works.
"""

from __future__ import annotations

import asyncio
import threading

from gateway.audit.check import Report, verify
from gateway.audit.recorded import NamesIn
from gateway.audit.source import Source, UnreadableError

_REST_S = 0.005  # after every few records


class _StoppedError(Exception):
    """The gateway stops; the walk need not end."""


class Reverification:
    """`fault` is what the walk found, in one sentence; None before, and if all is well."""

    def __init__(self, source: Source, names_in: NamesIn | None = None) -> None:
        """`names_in` names the windows of spend; without it spend is not compared."""
        self.fault: str | None = None
        self._source = source
        self._names_in = names_in
        self._stop = threading.Event()

    async def run(self) -> None:
        """Walk the trail once. Cancelled, the walk ends within a few records."""
        try:
            self.fault = await asyncio.to_thread(self._look)
        finally:
            self._stop.set()

    def _look(self) -> str | None:
        try:
            report = self._verify()
            if report.findings_count:
                report = self._verify()  # the first look may have met a checkpoint between the file and the table
        except _StoppedError:
            return None
        except UnreadableError as error:
            return str(error)
        except OSError as error:
            return f"The trail could not be verified: {error}."
        if not report.findings_count:
            return None
        first = report.findings[0]
        more = f" (and {report.findings_count - 1} more)" if report.findings_count > 1 else ""
        return (
            f"{first.code}: {first.message}{more}. Run `gateway audit verify` and restore the database from a backup."
        )

    def _verify(self) -> Report:
        return verify(self._source, payloads=False, rest=self._rest, names_in=self._names_in)

    def _rest(self) -> None:
        if self._stop.wait(_REST_S):
            raise _StoppedError
