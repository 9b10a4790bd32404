"""What cases keep of arguments and results, unreadable in the database: AES-256-GCM under a key file of its own.

The associated data names the case and the column, so that a sealed value fits nowhere else (NIST SP 800-38D).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import Refusal

KEY_FILE = "approvals.key"
_NONCE_BYTES = 12
_KEY_BYTES = 32


class Sealing:
    """Seals and opens values. Made by `Sealing.open`."""

    def __init__(self, key: bytes, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._cipher = AESGCM(key)
        self._mac_key = hmac.digest(key, b"gateway/approvals/mac/1", hashlib.sha256)
        self._random_bytes = random_bytes

    @classmethod
    def open(cls, keys_dir: Path, *, create: bool = True) -> Sealing:
        """Read the key in the folder, or make it where `create`. Raises Refusal(store_unavailable) for a broken one."""
        path = keys_dir / KEY_FILE
        if not path.exists():
            if not create:
                raise Refusal(
                    "store_unavailable",
                    f"{path} is missing: restore it from a backup, for what cases keep can be read with no other key; "
                    "only for a log without records `gateway migrate` makes one.",
                )
            _make(path)
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise Refusal("store_unavailable", f"{path} is not a key of {_KEY_BYTES} bytes; restore it from a backup.")
        return cls(key)

    def mac(self, data: bytes) -> str:
        """What stands for `data` where it is looked up: hex, and without the key nobody can try guesses on it."""
        return hmac.digest(self._mac_key, data, hashlib.sha256).hex()

    def seal(self, data: bytes, place: str) -> bytes:
        """`data`, readable only at `place`."""
        nonce = self._random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, place.encode())

    def unseal(self, sealed: bytes, place: str) -> bytes:
        """What was sealed for `place`. Raises Refusal(store_unavailable) for anything else."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
        except InvalidTag as error:
            raise Refusal(
                "store_unavailable",
                f"What was kept of {place} can't be opened: the database or keys/{KEY_FILE} is not what it was;"
                " restore both from one backup.",
            ) from error


def _make(path: Path) -> None:
    """A new key, whole or not at all: a part of one would look like a broken key at the next start."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
