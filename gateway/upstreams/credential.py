"""The credential that stands for the gateway at an upstream: a reference, resolved when first needed.

It is kept in memory only, never logged and never shown: `repr` gives the reference.
"""

from __future__ import annotations

from collections.abc import Callable

Resolve = Callable[[str], str]  # "env:NAME" or "file:/path" -> the secret


class Credential:
    """`resolve` reads what `reference` (such as `env:OPENAI_API_KEY`) points to."""

    def __init__(self, reference: str | None, resolve: Resolve) -> None:
        self._reference = reference
        self._resolve = resolve
        self._value: str | None = None

    def value(self) -> str | None:
        """The secret, or None where no reference is configured.

        Raises what `resolve` raises, and ValueError for a secret that can't stand in a header: a damaged one
        is better found here than sent.
        """
        if self._value is None and self._reference is not None:
            value = self._resolve(self._reference).strip()
            if not value or not value.isascii() or not value.isprintable():
                raise ValueError("the secret is empty or holds characters that no header may carry")
            self._value = value
        return self._value

    def forget(self) -> None:
        """Read the reference again next time: the upstream did not like this one, it may have been rotated."""
        self._value = None

    def __repr__(self) -> str:
        return f"Credential({self._reference!r})"
