"""Signing in with a key of one's own: nobody else makes the sign-in, so nobody else could have used it.

The gateway's configuration names a person's public key (Ed25519, as OpenSSH writes it). The person makes a sign-in link
on their own machine and signs its hash (RFC 8032); the gateway learns the link only when it is used. A copy of the
proof is worth nothing: the link that it admits is known to its maker alone, and is admitted once.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import Refusal
from gateway.identity import tokens
from gateway.public_keys import KIND, public_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HEADER = "x-gateway-sign-in"
VALID_S = 120.0
"""How far the clocks of a person and of the gateway may differ, in seconds."""
_MAX_CHARS = 600


class Proof(NamedTuple):
    """Whose link is to be admitted, and the hash of it."""

    person: str
    hashed: str


def verified(keys: Mapping[str, str], host: str, value: str, now_s: float) -> Proof:
    """What the header `HEADER` of a request proves. `host`: its Host header. Raises `unauthenticated`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    person, at, hashed, signature = ([*value.split(" "), "", "", "", ""])[:4] if len(value) <= _MAX_CHARS else [""] * 4
    is_now = at.isascii() and at.isdigit() and abs(int(at) - now_s) <= VALID_S
    if person in keys and is_now and len(hashed) == len(tokens.digest("")):
        try:
            key = Ed25519PublicKey.from_public_bytes(public_bytes(keys[person]))
            key.verify(base64.b64decode(signature, validate=True), _message(host, person, at, hashed))
            return Proof(person, hashed)
        except (InvalidSignature, ValueError):
            pass
    raise Refusal(
        "unauthenticated",
        "The signature does not sign anybody in: the key is not the one that sign_in.keys of gateway.yaml has for the"
        f" person, the clocks differ by more than {VALID_S:g} s, or the gateway was called by another address.",
    )


def proof(
    key: Ed25519PrivateKey, host: str, person: str, now_s: float, random_bytes: Callable[[int], bytes]
) -> tuple[str, str]:
    """A new sign-in link's secret, and the value of `HEADER` that has it admitted."""
    link = tokens.mint(tokens.SIGN_IN, random_bytes)
    at, hashed = str(int(now_s)), tokens.digest(link)
    signature = base64.b64encode(key.sign(_message(host, person, at, hashed))).decode()
    return link, " ".join((person, at, hashed, signature))


def private_key(path: Path, password: bytes | None = None) -> Ed25519PrivateKey:
    """The key in an OpenSSH file. Raises OSError, ValueError for another kind, TypeError where it needs a password."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    found = load_ssh_private_key(path.read_bytes(), password)
    if not isinstance(found, Ed25519PrivateKey):
        raise ValueError(f"it is no {KIND} key")  # noqa: TRY004 - of its content, not of our argument
    return found


def _message(host: str, person: str, at: str, hashed: str) -> bytes:
    # The host keeps one gateway from passing a proof on to another that knows the same key.
    return "\n".join(("gateway sign-in 1", host, person, at, hashed)).encode()
