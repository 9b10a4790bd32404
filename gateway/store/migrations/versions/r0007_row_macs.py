"""What shows that a gateway wrote a row, and which state of it is newer.

Old rows get no code here: the next start (for replicas `gateway migrate`) compares them with the log first.

Revision ID: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TABLES = (
    "agent",
    "agent_key",
    "person",
    "sign_in",
    "console_session",
    "spend",
    "approval_case",
    "case_vote",
    "case_comment",
    "case_key",
    "case_attempt",
)
_COUNTERS = {"agent": "change_no", "person": "change_no", "approval_case": "votes"}


def upgrade() -> None:
    """Add the columns, and note which tables have rows without a code."""
    for table in _TABLES:
        op.add_column(table, sa.Column("mac", sa.LargeBinary(), nullable=True))
    for table, column in _COUNTERS.items():
        op.add_column(table, sa.Column(column, _BIG, nullable=False, server_default="0"))
    op.create_table(
        "recorded",
        sa.Column("tenant", sa.String(), nullable=False, primary_key=True),
        sa.Column("size", _BIG, nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
    )
    op.create_table("unsealed", sa.Column("name", sa.String(), nullable=False, primary_key=True))
    for table in _TABLES:
        op.execute(f"INSERT INTO unsealed (name) SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})")  # noqa: S608
