"""That replicas have the same keys: the first one's fingerprints are kept, and every other must show the same."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import Refusal
from gateway.store.interface import Connection


def same_keys(connection: Connection, fingerprints: Mapping[str, str]) -> None:
    """Compare, or keep where there is none yet. Raises Refusal(store_unavailable) for a key that the others don't have.

    A fingerprint tells whether somebody has the same key, and nothing of the key.
    """
    for name, fingerprint in fingerprints.items():
        connection.execute(
            "INSERT INTO shared_key (name, fingerprint) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
            (name, fingerprint),
        )
        row = connection.execute("SELECT fingerprint FROM shared_key WHERE name = ?", (name,)).fetchone()
        if row[0] != fingerprint:
            raise Refusal(
                "store_unavailable",
                f"The {name} key of this replica is not the one that the others have: give all of them the same "
                "folder (GATEWAY_KEYS_DIR).",
            )
