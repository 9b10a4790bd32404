"""Public keys of people, as OpenSSH writes them into one line of a `.pub` file."""

from __future__ import annotations

import base64
import binascii

KIND = "ssh-ed25519"
_KEY_BYTES = 32


def public_bytes(text: str) -> bytes:
    """The key in a line such as `ssh-ed25519 AAAA... rita@laptop`. Raises ValueError with what to do."""
    kind, _, rest = text.strip().partition(" ")
    try:
        blob = base64.b64decode(rest.split(" ")[0], validate=True)
    except binascii.Error:
        blob = b""
    name = KIND.encode()
    head = len(name).to_bytes(4, "big") + name + _KEY_BYTES.to_bytes(4, "big")
    if kind != KIND or not blob.startswith(head) or len(blob) != len(head) + _KEY_BYTES:
        raise ValueError(
            f"write the line of a public key file that begins with {KIND}; `ssh-keygen -t ed25519` makes one"
        )
    return blob[len(head) :]
