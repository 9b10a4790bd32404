"""One record with what belongs to it: the other records of its action and case, its children and parent, payloads."""

from __future__ import annotations

import base64
import sqlite3
from typing import Any

import msgspec

from gateway.audit.leaf import Leaf, decode_leaf
from gateway.audit.vault import Kept, Sealed, Vault, VaultError
from gateway.audit.view import as_document
from gateway.errors import Refusal
from gateway.store.interface import Connection
from gateway.verify.commitments import commitment_holds

_RELATED_LIMIT = 200


class Disclosed(msgspec.Struct, frozen=True, kw_only=True):
    """A payload as far as it can be shown. `state`: kept, not_kept, erased, or altered (and so not shown).

    `salt` (base64) lets anyone check `commitment` against the content.
    """

    name: str
    size: int
    commitment: str
    state: str
    media: str | None = None
    text: str | None = None  # UTF-8 content
    base64: str | None = None  # content that is not UTF-8
    salt: str | None = None


class Shown(msgspec.Struct, frozen=True):
    """`signed`: a checkpoint covers the record. `related` is in the order of the log."""

    record: dict[str, Any]
    signed: bool
    related: list[dict[str, Any]]
    payloads: list[Disclosed]


def show(connection: Connection, vault: Vault, tenant: str, wanted: str, signed_size: int, *, disclose: bool) -> Shown:
    """The record `wanted`: its id, or that of an action or case for the first record of it. Refusal(not_found)."""
    row = connection.execute("SELECT idx, body FROM leaf WHERE id = ?", (wanted,)).fetchone()
    if row is None:
        row = connection.execute(
            "SELECT leaf.idx, leaf.body FROM record_view AS view JOIN leaf ON leaf.idx = view.idx"
            " WHERE view.action = ? ORDER BY view.idx LIMIT 1",
            (wanted,),
        ).fetchone()
    if row is None:
        row = connection.execute(
            "SELECT leaf.idx, leaf.body FROM record_view AS view JOIN leaf ON leaf.idx = view.idx"
            " WHERE view.case_id = ? ORDER BY view.idx LIMIT 1",
            (wanted,),
        ).fetchone()
    leaf = None if row is None else decode_leaf(row[1])
    if leaf is None or leaf.tenant != tenant:
        raise Refusal("not_found", f"No record, action or case has the id {wanted[:64]}.")
    idx = int(row[0])
    related = _related(connection, leaf, idx)
    payloads = open_payloads(connection, vault, leaf) if disclose else []
    return Shown(as_document(idx, row[1]), idx < signed_size, related, payloads)


def _related(connection: Connection, leaf: Leaf, idx: int) -> list[dict[str, Any]]:
    if leaf.action is None and leaf.case is None:
        return []
    action = None if leaf.action is None else leaf.action.id
    parent = None if leaf.refs is None else leaf.refs.parent
    rows = connection.execute(
        "SELECT leaf.idx, leaf.body FROM record_view AS view JOIN leaf ON leaf.idx = view.idx"
        " WHERE (view.action IN (?, ?) OR view.parent = ? OR view.case_id = ?) AND view.idx != ?"
        " ORDER BY view.idx LIMIT ?",
        (action, parent, action, leaf.case, idx, _RELATED_LIMIT),
    ).fetchall()
    return [as_document(*row) for row in rows]


def open_payloads(connection: Connection, vault: Vault, leaf: Leaf) -> list[Disclosed]:
    """What the vault holds of a record, checked against the commitments in it."""
    if not leaf.payloads:
        return []
    row = connection.execute(
        "SELECT payload.sealed, payload_key.wrapped FROM payload JOIN payload_key USING (leaf_id) WHERE leaf_id = ?",
        (leaf.id,),
    ).fetchone()
    kept: dict[str, Kept] = {}
    missing = "erased"
    if row is not None:
        missing = "altered"
        try:
            kept = {item.name: item for item in vault.open(leaf.id, Sealed(*row))}
        except VaultError:
            kept = {}  # said below, payload by payload
    shown: list[Disclosed] = []
    for part in leaf.payloads:
        item = kept.get(part.name)
        if item is None or item.data is None:
            state = missing if item is None else "not_kept"
            shown.append(Disclosed(name=part.name, size=part.size, commitment=part.commitment, state=state))
            continue
        holds = commitment_holds(part.commitment, item.salt, part.name, item.media, item.data)
        text, packed = _as_text(item.data) if holds else (None, None)
        shown.append(
            Disclosed(
                name=part.name,
                size=part.size,
                commitment=part.commitment,
                state="kept" if holds else "altered",
                media=item.media,
                text=text,
                base64=packed,
                salt=base64.b64encode(item.salt).decode(),
            )
        )
    return shown


def _as_text(data: bytes) -> tuple[str | None, str | None]:
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(data).decode()


def erase(connection: Connection, leaf_id: str) -> None:
    """Destroy the key, and the sealed bytes with it. Refusal(not_found) or Refusal(conflict) if there is none.

    SQLite leaves no copy of the key on a free page; in PostgreSQL it is gone from the disk when the table was vacuumed
    and the page was used again.
    """
    in_file = isinstance(connection, sqlite3.Connection)
    if in_file:
        connection.execute("PRAGMA secure_delete=ON")
    try:
        if connection.execute("DELETE FROM payload_key WHERE leaf_id = ?", (leaf_id,)).rowcount:
            connection.execute("DELETE FROM payload WHERE leaf_id = ?", (leaf_id,))
            return
    finally:
        if in_file:
            connection.execute("PRAGMA secure_delete=OFF")  # elsewhere it would only cost time
    if connection.execute("SELECT 1 FROM leaf WHERE id = ?", (leaf_id,)).fetchone() is None:
        raise Refusal("not_found", f"No record has the id {leaf_id[:64]}.")
    raise Refusal("conflict", f"The record {leaf_id} has no payloads, or they were erased before.")
