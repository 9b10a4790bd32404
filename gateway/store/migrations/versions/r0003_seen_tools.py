"""Tools that agents were seen to declare.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # 64 bits everywhere: times are nanoseconds


def _text(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False, primary_key=key)


def _int(name: str) -> sa.Column[int]:
    return sa.Column(name, _BIG, nullable=False)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "seen_tool",
        _text("agent", key=True),
        _text("tool", key=True),
        *[_text(name) for name in ("tenant", "description", "parameters")],
        *[_int(name) for name in ("first_ns", "last_ns", "count")],
    )
