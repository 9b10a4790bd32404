"""Cases, votes, attempts and kept answers; groups of reviewers; records by case.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # 64 bits everywhere: times are nanoseconds


def _text(name: str, *, null: bool = False, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=null, primary_key=key)


def _int(name: str, *, null: bool = False, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, _BIG, nullable=null, primary_key=key, autoincrement=False if key else "auto")


def _blob(name: str, *, null: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=null)


def _partial(name: str, column: str, where: str, *, unique: bool = False) -> None:
    only = sa.text(where)
    op.create_index(name, "approval_case", [column], unique=unique, sqlite_where=only, postgresql_where=only)


def upgrade() -> None:
    """Add the tables, and a column to two that there are."""
    op.create_table(
        "approval_case",
        _text("id", key=True),
        *[_text(name) for name in ("tenant", "kind", "action_id", "digest")],
        _text("parent", null=True),
        _text("idempotency", null=True),
        _text("agent"),
        _text("user", null=True),
        *[_text(name) for name in ("server", "tool", "risk", "effect", "rules")],
        _text("definition_digest", null=True),
        _text("state"),
        *[_int(name) for name in ("open", "version", "fence")],
        *[_text(name) for name in ("requirement", "presented_digest")],
        _blob("asked"),
        *[_int(name) for name in ("opened_ns", "expires_ns")],
        *[_int(name, null=True) for name in ("decided_ns", "ended_ns", "told_until_ns")],
        _text("code", null=True),
        _text("why"),
        _text("released_to", null=True),
        _blob("ending", null=True),
    )
    _partial("approval_case_open", "digest", "open = 1", unique=True)
    op.create_index("approval_case_digest", "approval_case", ["digest", "opened_ns"])
    op.create_index("approval_case_key", "approval_case", ["idempotency"])
    op.create_index("approval_case_state", "approval_case", ["state", "expires_ns"])
    op.create_index("approval_case_agent", "approval_case", ["agent", "id"])
    op.create_index("approval_case_parent", "approval_case", ["parent"])
    _partial("approval_case_waiting", "agent", "state = 'pending'")
    _partial("approval_case_ending", "told_until_ns", "ending IS NOT NULL AND open = 0")
    op.create_table("case_key", _text("idempotency", key=True), _text("case_id"), sqlite_with_rowid=False)
    op.create_index("case_key_case", "case_key", ["case_id"])
    op.create_table(
        "case_vote",
        _text("id", key=True),
        *[_text(name) for name in ("case_id", "person", "choice", "presented_digest", "reason", "guidance")],
        _int("ts_ns"),
        sa.UniqueConstraint("case_id", "person", "presented_digest"),
    )
    op.create_table(
        "case_comment",
        _text("id", key=True),
        *[_text(name) for name in ("case_id", "person", "text")],
        _int("ts_ns"),
    )
    op.create_index("case_comment_case", "case_comment", ["case_id"])
    op.create_table(
        "case_attempt",
        _text("case_id", key=True),
        _int("fence", key=True),
        _int("started_ns"),
        _int("ended_ns", null=True),
        _text("outcome", null=True),
        _text("note", null=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "kept_answer",
        _text("request", key=True),
        _text("digest"),
        _text("answer_id"),
        _blob("sealed"),
        *[_int(name) for name in ("stream", "until_ns")],
        sqlite_with_rowid=False,
    )
    op.create_index("kept_answer_id", "kept_answer", ["answer_id"])
    op.create_index("kept_answer_until", "kept_answer", ["until_ns"])
    op.add_column("person", sa.Column("groups", sa.String(), nullable=False, server_default="[]"))
    op.add_column("record_view", _text("case_id", null=True))
    op.create_index("record_view_case", "record_view", ["case_id"])
