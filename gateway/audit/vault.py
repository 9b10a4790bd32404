"""The payload vault: content beside the log, sealed per record, erasable.

Each record's payloads are sealed together under a key of the record's own (AES-256-GCM, the record's id as
associated data). The salts of their commitments lie inside the seal; the record's key is wrapped by a key in
DATA_DIR/keys and stands in a table apart. Destroying that row makes content and commitments meaningless, while
the record and every proof stay valid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.audit.leaf import Leaf, Payload, PayloadPart
from gateway.verify.commitments import SALT_BYTES, commitment

_KEY_BYTES = 32
_NONCE_BYTES = 12
_HEAD_BYTES = _KEY_BYTES + _NONCE_BYTES
_FIRST = bytes(_NONCE_BYTES)  # a record's key seals exactly once, so its nonce need not vary
_LEVELS = {"metadata", "arguments", "full"}
_ANSWER = "response"


class Kept(NamedTuple):
    """One payload as sealed. `data` is None where only its commitment and size were kept."""

    name: str
    media: str
    salt: bytes
    data: bytes | None


class Sealed(NamedTuple):
    """What is stored for one record."""

    payload: bytes
    wrapped_key: bytes


class VaultError(ValueError):
    """A sealed payload was altered, or its key does not fit."""


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[Kept]).decode


class Vault:
    """Seals and opens. `capture`: metadata keeps no content, arguments keeps what was asked, full also answers.

    A payload over `cap_bytes` is not kept either. Its commitment and size are of the whole, and the record's
    label `not_kept.<name>` says why it is missing.
    """

    def __init__(
        self, kek: bytes, kek_id: str, *, capture: str, cap_bytes: int, random_bytes: Callable[[int], bytes]
    ) -> None:
        if capture not in _LEVELS:
            raise ValueError(f"capture is one of {sorted(_LEVELS)}, not {capture!r}")
        self.kek_id = kek_id
        self._kek = AESGCM(kek)
        self._capture = capture
        self._cap_bytes = cap_bytes
        self._random_bytes = random_bytes

    def seal(self, leaf: Leaf, payloads: tuple[Payload, ...]) -> Sealed:
        """Seal `payloads` for the record and write their commitments into it."""
        random = self._random_bytes(_HEAD_BYTES + SALT_BYTES * len(payloads))
        parts: list[PayloadPart] = []
        kept: list[tuple[str, str, bytes, bytes | None]] = []
        at = _HEAD_BYTES
        for payload in payloads:
            name, media, data = payload.name, payload.media, payload.data
            salt = random[at : at + SALT_BYTES]
            at += SALT_BYTES
            committed = commitment(salt, name, media, data)
            size = len(data)
            if size <= self._cap_bytes and self._keeps(name):
                parts.append(PayloadPart(name, committed, size, payload.data_class, self.kek_id))
                kept.append((name, media, salt, data))
            else:
                leaf.labels[f"not_kept.{name}"] = self._why_not(size)
                parts.append(PayloadPart(name, committed, size, payload.data_class))
                kept.append((name, media, salt, None))
            if name == "policy_input" and leaf.decision is not None:
                leaf.decision.input_commitment = committed
        leaf.payloads = tuple(parts)
        key, nonce, bound = random[:_KEY_BYTES], random[_KEY_BYTES:_HEAD_BYTES], leaf.id.encode()
        return Sealed(AESGCM(key).encrypt(_FIRST, _pack(kept), bound), nonce + self._kek.encrypt(nonce, key, bound))

    def open(self, leaf_id: str, sealed: Sealed) -> list[Kept]:
        """The payloads of a record; raises VaultError if anything about them was changed."""
        bound, wrapped = leaf_id.encode(), sealed.wrapped_key
        try:
            key = self._kek.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], bound)
            return _unpack(AESGCM(key).decrypt(_FIRST, sealed.payload, bound))
        except (InvalidTag, ValueError, msgspec.DecodeError) as error:
            raise VaultError(f"the payloads of record {leaf_id} do not open: altered, or another key") from error

    def _keeps(self, name: str) -> bool:
        return self._capture == "full" or (self._capture == "arguments" and name != _ANSWER)

    def _why_not(self, size: int) -> str:
        return f"over {self._cap_bytes} bytes" if size > self._cap_bytes else f"capture is {self._capture}"
