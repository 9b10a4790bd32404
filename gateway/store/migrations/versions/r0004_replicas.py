"""What many replicas share: who runs, records on their way into the log, whose spend it is.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, *, null: bool = False, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=null, primary_key=key)


def _int(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, _BIG, nullable=null)


def upgrade() -> None:
    """Add the tables; `spend` gets another key, so it is made anew and filled from the old one."""
    op.create_table(
        "replica",
        _text("id", key=True),
        *[_text(name) for name in ("name", "url", "version")],
        *[_int(name) for name in ("started_ns", "beat_ns", "seq")],
        _int("ended_ns", null=True),
        _int("released"),
        _text("told"),
    )
    op.create_table(
        "ingest",
        sa.Column("seq", _BIG, primary_key=True),
        _text("id"),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("id"),
    )
    op.create_table("changed", _text("topic", key=True), _int("version"))
    op.create_table("shared_key", _text("name", key=True), _text("fingerprint"))
    op.rename_table("spend", "spend_before")
    op.create_table(
        "spend",
        *[_text(name, key=True) for name in ("tenant", "level", "window", "replica")],
        *[_int(name) for name in ("nanousd", "tokens")],
        sqlite_with_rowid=False,
    )
    op.execute(
        'INSERT INTO spend (tenant, level, "window", replica, nanousd, tokens)'
        " SELECT tenant, level, \"window\", '', nanousd, tokens FROM spend_before"
    )
    op.drop_table("spend_before")
    op.add_column("open_intent", sa.Column("replica", sa.String(), nullable=False, server_default=""))
    op.add_column("open_intent", _text("digest", null=True))
    alone = sa.text("digest IS NOT NULL")
    op.create_index(
        "open_intent_digest", "open_intent", ["digest"], unique=True, sqlite_where=alone, postgresql_where=alone
    )
    op.create_index("open_intent_replica", "open_intent", ["replica"])
    op.add_column("case_attempt", sa.Column("replica", sa.String(), nullable=False, server_default=""))
    op.add_column("checkpoint", sa.Column("frontier", sa.LargeBinary(), nullable=True))
    op.add_column("approval_case", sa.Column("written", _BIG, nullable=True))
    if op.get_bind().dialect.name == "sqlite":  # only there can cases be older than this
        op.execute("UPDATE approval_case SET written = rowid")
    op.create_index("approval_case_written", "approval_case", ["written"])
