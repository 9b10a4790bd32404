"""The keys that replicas share, made once, by `gateway migrate`, and only for a log that is still empty.

Owns: that all of them are there before the first replica starts. Never does: replace a key; one that is missing beside
a log with records comes from a backup.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from gateway.approvals import Sealing
from gateway.approvals.sealing import KEY_FILE
from gateway.audit import keys as audit_keys
from gateway.errors import Refusal

_SESSION_KEY = "mcp-session.key"
_KEY_BYTES = 32


def make_keys(folder: Path, origin: str, *, is_new: bool) -> None:
    """Every key in `folder`, made where it is missing and `is_new` (the log has no record yet).

    Raises Refusal where one is missing beside a log with records, or unreadable.
    """
    audit_keys.load(folder, origin, create=is_new, random_bytes=audit_keys.system_random)
    Sealing.open(folder, create=is_new)
    session_key(folder, create=is_new)


def fingerprints(folder: Path) -> dict[str, str]:
    """What tells whether another replica has the same keys beside the log's, and nothing of the keys."""
    keys = {"approvals": (folder / KEY_FILE).read_bytes(), "mcp-session": session_key(folder, create=False)}
    return {name: sha256(f"gateway/{name}\x00".encode() + key).hexdigest()[:32] for name, key in keys.items()}


def session_key(folder: Path, *, create: bool) -> bytes:
    """The key that binds MCP session ids to credentials and names the console's own host; kept beside the other keys.

    Made where `create` and it is missing.

    Raises Refusal(store_unavailable) where it is damaged, or missing and a replica would have to make its own.
    """
    path = folder / _SESSION_KEY
    if not path.exists():
        if not create:
            raise Refusal(
                "store_unavailable",
                f"{path} is missing: restore it from a backup and give all replicas that folder (GATEWAY_KEYS_DIR), "
                "whose keys have to be the same; only for a log without records `gateway migrate` makes one.",
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_KEY_BYTES))
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise Refusal("store_unavailable", f"{path} is not a key of {_KEY_BYTES} bytes; restore it from a backup.")
    return key
