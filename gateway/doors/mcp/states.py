"""`requestState` of revision 2026-07-28: what a waiting client brings back with its next leg.

It comes back from the client, so nothing of it is believed without its proof: a keyed digest over the case, the leg,
the end of its validity, and over what is not in it, the credential and the digest of the call (agent, user, tool,
arguments). It grants nothing: the leg is the same call again, decided and recorded like any other.

Source: MCP 2026-07-28, "Multi round-trip requests", on the integrity of `requestState`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import NamedTuple

import msgspec

from gateway.doors.mcp.protocol import INVALID_PARAMS, Fault

VALID_S = 120.0  # from the end of a leg to the begin of the next; clients come back in fractions of a second
MAX_STATE_CHARS = 512
_PROOF_BYTES = 32
_NANOS = 1_000_000_000
_AGAIN = "repeat the call without it; it attaches to the same case."


class State(NamedTuple):
    """`leg`: how many legs are over. `until_ns`: valid until then, Unix time in nanoseconds."""

    case: str
    leg: int
    until_ns: int


class States:
    """Issues and checks states. `key` is a secret of at least 32 bytes, shared by all replicas."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._decode = msgspec.json.Decoder(State).decode

    def issue(self, state: State, credential_id: str, digest: str) -> str:
        """`state` as text, for the holder of `credential_id` and the call of that digest."""
        plain = msgspec.json.encode(state)
        return base64.urlsafe_b64encode(self._proof(plain, credential_id, digest) + plain).decode()

    def read(self, text: object, credential_id: str, digest: str, now_ns: int) -> State:
        """The state in `text`. Raises `Fault` -32602 for one that was not issued for this caller and call."""
        if type(text) is not str or len(text) > MAX_STATE_CHARS:
            raise no_such_state()
        try:
            sealed = base64.b64decode(text, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise no_such_state() from None
        proof, plain = sealed[:_PROOF_BYTES], sealed[_PROOF_BYTES:]
        if not hmac.compare_digest(proof, self._proof(plain, credential_id, digest)):
            raise no_such_state()
        state = self._decode(plain)
        if now_ns > state.until_ns:
            raise Fault(INVALID_PARAMS, f"Invalid params: this requestState has expired; {_AGAIN}")
        return state

    def _proof(self, plain: bytes, credential_id: str, digest: str) -> bytes:
        # Lengths before the parts: no two pairs of values read the same.
        parts = [part for value in (credential_id.encode(), digest.encode()) for part in (b"%d:" % len(value), value)]
        return hmac.digest(self._key, b"".join((*parts, plain)), "sha256")


def valid_until_ns(begun_ns: int, leg_s: float) -> int:
    """Until when the state is valid that ends a leg which began at `begun_ns`."""
    return begun_ns + int((leg_s + VALID_S) * _NANOS)


def no_such_state() -> Fault:
    """The fault for a state that is not this caller's for this call; whose it is instead is not told."""
    return Fault(
        INVALID_PARAMS,
        "Invalid params: the gateway issued no such requestState to this credential for this call with these"
        f" arguments; {_AGAIN}",
    )
