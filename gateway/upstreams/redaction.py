"""Takes the gateway's own secrets out of what an upstream answers: some echo their request's headers back."""

from __future__ import annotations

from collections.abc import Iterable

REDACTED = b"[redacted]"
_LEAST_BYTES = 8  # shorter ones are no secrets, and would be found in the grammar of any answer


def hidden(secrets: Iterable[str | None]) -> tuple[bytes, ...]:
    """The secrets as `redact` looks for them, the longest first, since one may hold another."""
    found = {secret.encode() for secret in secrets if secret is not None and len(secret) >= _LEAST_BYTES}
    return tuple(sorted(found, key=len, reverse=True))


def redact(data: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """`data` without the secrets that stand in it verbatim. One torn apart by two pieces of a stream is not found."""
    for secret in secrets:
        if secret in data:
            data = data.replace(secret, REDACTED)
    return data
