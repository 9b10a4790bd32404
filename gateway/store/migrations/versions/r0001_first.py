"""Everything the first version keeps.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # 64 bits everywhere: times are nanoseconds


def _text(name: str, *, null: bool = False, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=null, primary_key=key)


def _int(name: str, *, null: bool = False, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, _BIG, nullable=null, primary_key=key, autoincrement=False if key else "auto")


def _blob(name: str, *, null: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=null)


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "agent",
        _text("id", key=True),
        *[_text(name) for name in ("tenant", "env", "version", "team", "use_case", "tier", "status", "owners")],
        _text("next_review", null=True),
        _text("labels"),
        _text("source"),
        _int("created_ns"),
    )
    op.create_table(
        "agent_key",
        _text("id", key=True),
        _text("tenant"),
        _text("agent_id"),
        _text("key_sha256"),
        _text("user", null=True),
        _int("created_ns"),
        _int("expires_ns", null=True),
        _int("revoked_ns", null=True),
        sa.UniqueConstraint("key_sha256"),
    )
    op.create_index("ix_agent_key_agent_id", "agent_key", ["agent_id"])
    op.create_table(
        "person",
        _text("id", key=True),
        _text("tenant"),
        _text("name"),
        _text("roles"),
        _int("created_ns"),
        _int("removed_ns", null=True),
    )
    op.create_table(
        "sign_in",
        _text("token_sha256", key=True),
        _text("person_id"),
        _int("expires_ns"),
        _int("used_ns", null=True),
    )
    op.create_table(
        "console_session",
        _text("token_sha256", key=True),
        _text("person_id"),
        _int("created_ns"),
        _int("expires_ns"),
        _int("revoked_ns", null=True),
    )
    op.create_table(
        "spend",
        _text("tenant", key=True),
        _text("level", key=True),
        _text("window", key=True),
        _int("nanousd"),
        _int("tokens"),
        sqlite_with_rowid=False,
    )
    _log()


def _log() -> None:
    op.create_table(
        "leaf",
        _int("idx", key=True),
        _text("id"),
        _blob("body"),
        _blob("hash"),
        sa.UniqueConstraint("id"),
    )
    op.create_table("checkpoint", _int("size", key=True), _blob("root"), _blob("note"), _int("ts_ns"))
    op.create_table("log_head", _text("tenant", key=True), _text("writer"), _int("size"), _blob("frontier"))
    op.create_table(
        "payload",
        sa.Column("seq", _BIG, nullable=False, primary_key=True),
        _text("leaf_id"),
        _blob("sealed"),
        sa.UniqueConstraint("leaf_id"),
    )
    op.create_table("payload_key", _text("leaf_id", key=True), _text("kek"), _blob("wrapped"), sqlite_with_rowid=False)
    op.create_table(
        "open_intent",
        _text("action_id", key=True),
        _text("leaf_id"),
        _blob("reservation", null=True),
        sqlite_with_rowid=False,
    )
    optional = ["agent", "user", "session", "action", "parent", "kind", "server", "tool", "model"]
    optional += ["effect", "status", "code", "rules"]
    op.create_table(
        "record_view",
        _int("idx", key=True),
        *[_text(name) for name in ("id", "ts", "type", "tenant")],
        *[_text(name, null=True) for name in optional],
    )
    for index, columns in (
        ("record_view_agent", ["agent", "idx"]),
        ("record_view_session", ["session", "idx"]),
        ("record_view_action", ["action"]),
        ("record_view_parent", ["parent"]),
        ("record_view_ts", ["ts"]),
    ):
        op.create_index(index, "record_view", columns)


def downgrade() -> None:
    """There is nothing before the first version."""
    raise NotImplementedError("the first revision can't be undone: restore a backup instead")
