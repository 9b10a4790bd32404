"""Salted commitments to payloads: what a record says about content that lives apart from it.

HMAC-SHA256 with a secret salt per payload: without the salt nobody can guess a small payload from its commitment;
with salt and payload anyone can check it; when the salt is destroyed the commitment says nothing any more.
"""

from __future__ import annotations

import hmac
from functools import lru_cache

SALT_BYTES = 32
_DOMAIN = b"gateway/payload/v1\x00"
_PREFIX = "hmac-sha256:"


def commitment(salt: bytes, name: str, media: str, data: bytes) -> str:
    """`hmac-sha256:<hex>` over domain, name, media type and payload, each ended by a zero byte but the last."""
    return _PREFIX + hmac.digest(salt, _head(name, media) + data, "sha256").hex()


@lru_cache(maxsize=64)
def _head(name: str, media: str) -> bytes:
    return b"".join((_DOMAIN, name.encode(), b"\x00", media.encode(), b"\x00"))


def commitment_holds(stated: str, salt: bytes, name: str, media: str, data: bytes) -> bool:
    """Whether `stated` is the commitment to exactly this payload."""
    return hmac.compare_digest(stated.encode(), commitment(salt, name, media, data).encode())
