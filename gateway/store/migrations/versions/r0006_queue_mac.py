"""What shows that a replica wrote a row of the queue of records, and nobody else.

Revision ID: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; rows that wait just then are refused, so stop all replicas before."""
    op.add_column("ingest", sa.Column("mac", sa.LargeBinary(), nullable=False, server_default=""))
