"""`Mcp-Session-Id` of the revisions with a handshake: a value that proves itself, so that none is kept.

It is a random name and a keyed digest that binds the name to one credential. Whoever holds another credential
can't use it, a restart forgets none, and every replica with the same key accepts it. The name alone gives access to
nothing, so it is enough to remember the last few thousand that clients ended, in this process.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable

_NAME_BYTES = 16
_PROOF_HEX = 32  # 128 bits
_ENDED_KEPT = 4096


class Sessions:
    """Issues and checks session ids. `key` is a secret of at least 32 bytes, shared by all replicas."""

    def __init__(self, key: bytes, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        if len(key) < 32:
            raise ValueError("the session key needs at least 32 bytes")
        self._key = key
        self._random_bytes = random_bytes
        self._ended: dict[bytes, None] = {}  # in the order in which they ended

    def key_for(self, purpose: bytes) -> bytes:
        """A key of its own for something else that must prove itself; it tells nothing of this one."""
        return hmac.digest(self._key, b"mcp-key\x00" + purpose, "sha256")

    def issue(self, credential_id: str) -> bytes:
        """A new session id for the holder of `credential_id`; visible ASCII, as the header demands."""
        name = self._random_bytes(_NAME_BYTES).hex().encode()
        return name + b"." + self._proof(name, credential_id)

    def belongs(self, session: bytes, credential_id: str) -> bool:
        """Whether `session` was issued to the holder of `credential_id` and has not been ended."""
        name, _, proof = session.partition(b".")
        return hmac.compare_digest(proof, self._proof(name, credential_id)) and session not in self._ended

    def end(self, session: bytes) -> None:
        """Remember that `session`, which belongs to whoever ends it, is over."""
        if len(self._ended) >= _ENDED_KEPT:
            del self._ended[next(iter(self._ended))]
        self._ended[session] = None

    def _proof(self, name: bytes, credential_id: str) -> bytes:
        digest = hmac.digest(self._key, b"mcp-session\x00" + name + b"\x00" + credential_id.encode(), "sha256")
        return digest.hex()[:_PROOF_HEX].encode()
