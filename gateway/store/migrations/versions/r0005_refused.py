"""An index by which refusals are counted, however many other records there are.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index; only refusals are in it."""
    alone = sa.text("type = 'action.refused'")
    columns = ["ts", "tenant", "agent", "code"]
    op.create_index("record_view_refused", "record_view", columns, sqlite_where=alone, postgresql_where=alone)
