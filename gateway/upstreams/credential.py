"""The credential that stands for the gateway at an upstream: a reference, resolved when first needed.

It is kept in memory only and redacted wherever it comes back; `repr` gives the reference. A file is read again when it
changed, so that a rotated credential is used before the old one is refused. Fails closed: what can't be read is a
refusal, and nothing is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from gateway import known_secrets
from gateway.errors import Refusal

Resolve = Callable[[str], str]  # "env:NAME" or "file:/path" -> the secret; raises ValueError or OSError

_log = logging.getLogger(__name__)


class Credential:
    """`resolve` reads what `reference` (such as `env:OPENAI_API_KEY`) points to; `of` names whose it is."""

    def __init__(self, reference: str | None, resolve: Resolve, *, of: str) -> None:
        self._reference = reference
        self._resolve = resolve
        self._of = of
        self._value: str | None = None
        self._path = reference.removeprefix("file:") if reference and reference.startswith("file:") else None
        self._seen: tuple[int, int, int] | None = None  # of the file, when it was read

    def value(self) -> str | None:
        """The secret, fit for a header, or None where no reference is configured. Raises `upstream_failed`."""
        stamp = None if self._path is None else _stamp(self._path)
        if self._reference is not None and (self._value is None or stamp != self._seen):
            try:
                self._seen = stamp
                value = _fit_for_a_header(self._resolve(self._reference).strip())
                known_secrets.remember(self._reference, value)
                self._value = value
            except (OSError, ValueError) as fault:
                _log.warning("the credential for the %s can't be used: %s", self._of, type(fault).__name__)
                sentence = (
                    f"The gateway can't read its own credential for the {self._of}; its operator must mend the "
                    "reference to it."
                )
                raise Refusal("upstream_failed", sentence, detail={"dispatched": "no"}) from fault
        return self._value

    def forget(self) -> None:
        """Read the reference again next time: the upstream did not like this one, it may have been rotated."""
        self._value = None

    def __repr__(self) -> str:
        return f"Credential({self._reference!r})"


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None  # reading it says why
    return found.st_mtime_ns, found.st_size, found.st_ino


def _fit_for_a_header(value: str) -> str:
    if not value or not value.isascii() or not value.isprintable():
        raise ValueError("the secret is empty or holds characters that no header may carry")
    return value
