"""Who has a say in what a person says: findings of reviewers, and who made the sessions that people speak through.

Every column may be NULL, which means the same as before this revision: nobody else had a hand in it. The codes of rows
that have only NULL there stay valid (see `Covered.later` in store/macs.py).

Revision ID: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_COLUMNS = {
    "approval_case": ("findings",),
    "case_vote": ("makers",),
    "sign_in": ("makers", "parent"),
    "console_session": ("makers", "parent"),
    "person": ("given",),
}


def upgrade() -> None:
    """Add the columns."""
    for table, columns in _COLUMNS.items():
        for column in columns:
            op.add_column(table, sa.Column(column, sa.String(), nullable=True))
