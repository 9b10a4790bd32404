"""The log's keys: files in DATA_DIR/keys, mode 600, made at the first start and never replaced silently."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from gateway.audit.files import create_durably
from gateway.errors import Refusal
from gateway.verify.notes import NoteError, Signer

_SIGNING = "audit-signing.key"
_WRAPPING = "payload-wrapping.key"
_DIGEST = "digest.key"
_SECRET_BYTES = 32


class Keys:
    """`signer` signs checkpoints, `wrapping` wraps payload keys, `digest` keys the digests of arguments."""

    def __init__(self, signer: Signer, wrapping: bytes, digest: bytes) -> None:
        self.signer = signer
        self.wrapping = wrapping
        self.digest = digest

    @property
    def fingerprints(self) -> dict[str, str]:
        """What tells whether somebody else has the same keys, and nothing of the keys."""
        secrets = {"payload-wrapping": self.wrapping, "digest": self.digest}
        told = {name: sha256(f"gateway/{name}\x00".encode() + key).hexdigest()[:32] for name, key in secrets.items()}
        return {"audit-signing": self.signer.verifier.vkey, **told}

    @property
    def queue(self) -> bytes:
        """Keys the authentication of records that wait for their place in a database that replicas share."""
        return _queue(self.digest)

    @property
    def rows(self) -> bytes:
        """Keys the codes of rows (store/macs.py)."""
        return _rows(self.digest)

    @property
    def wrapping_id(self) -> str:
        """Name of the wrapping key in records: tells which key it was, not what it is."""
        return "kek-" + sha256(b"gateway/kek-id\x00" + self.wrapping).hexdigest()[:16]


def load(folder: Path, origin: str, *, create: bool, random_bytes: Callable[[int], bytes]) -> Keys:
    """Read the keys in `folder`; make missing ones only if `create` (a log that is still empty).

    Raises Refusal(audit_unavailable) if one is missing, unreadable by form, or open to other users.
    """
    if create:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def text_of(name: str, fresh: Callable[[], str]) -> str:
        path = folder / name
        if not path.exists():
            if not create:
                raise Refusal(
                    "audit_unavailable",
                    f"The key file {path} is missing although the log has records: restore it from a backup; "
                    "a new key can't continue the old log.",
                )
            create_durably(path, fresh().encode() + b"\n")
        if path.stat().st_mode & 0o077:
            raise Refusal("audit_unavailable", f"The key file {path} is open to others: run chmod 600 on it.")
        try:
            return path.read_text("ascii").strip()
        except UnicodeDecodeError:  # whose text would quote the key
            damaged = f"The key file {path} is damaged: restore it from a backup."
        raise Refusal("audit_unavailable", damaged)

    def secret(name: str) -> bytes:
        text = text_of(name, lambda: base64.b64encode(random_bytes(_SECRET_BYTES)).decode())
        try:
            raw = base64.b64decode(text, validate=True)
        except binascii.Error:
            raw = b""
        if len(raw) != _SECRET_BYTES:
            raise Refusal("audit_unavailable", f"The key file {folder / name} is damaged: restore it from a backup.")
        return raw

    try:
        signer = Signer.parse(text_of(_SIGNING, lambda: Signer(origin, random_bytes(_SECRET_BYTES)).skey))
    except NoteError as error:
        raise Refusal(
            "audit_unavailable", f"The key file {folder / _SIGNING} is damaged ({error}): restore it from a backup."
        ) from error
    if signer.verifier.name != origin:
        raise Refusal(
            "audit_unavailable",
            f"The signing key is for the log {signer.verifier.name!r}, but audit.origin is {origin!r}: "
            "set audit.origin back; a log keeps its origin for life.",
        )
    return Keys(signer, secret(_WRAPPING), secret(_DIGEST))


def signing_key(folder: Path) -> Path:
    """Where the signing key stands, if it is there."""
    return folder / _SIGNING


def public_key(folder: Path) -> str | None:
    """`name+hash` of the signing key, for a verifier; None where it can't be read."""
    try:
        return Signer.parse((folder / _SIGNING).read_text("ascii").strip()).verifier.short
    except (NoteError, OSError, UnicodeDecodeError):
        return None


def wrapping_key(folder: Path) -> bytes | None:
    """The wrapping key for a verifier, None where it can't be read."""
    return _read(folder / _WRAPPING)


def queue_key(folder: Path) -> bytes | None:
    """What authenticates records that wait, for a verifier; None where it can't be read."""
    digest = _read(folder / _DIGEST)
    return None if digest is None else _queue(digest)


def rows_key(folder: Path) -> bytes | None:
    """What authenticates rows, for a verifier; None where it can't be read."""
    digest = _read(folder / _DIGEST)
    return None if digest is None else _rows(digest)


def _rows(digest: bytes) -> bytes:
    return hmac.digest(digest, b"gateway/rows/1", "sha256")


def _queue(digest: bytes) -> bytes:
    return hmac.digest(digest, b"gateway/queue", "sha256")


def _read(path: Path) -> bytes | None:
    try:
        return base64.b64decode(path.read_text().strip(), validate=True)
    except (OSError, ValueError):
        return None


def system_random(count: int) -> bytes:
    """Random bytes of the operating system."""
    return os.urandom(count)
