"""Runs migrations on the connection that `gateway.store.schema.migrate` hands over."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from gateway.store import tables

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    include_name=lambda name, kind, _parents: kind != "table" or name in SQLModel.metadata.tables,
    render_as_batch=True,  # SQLite can't alter columns in place
)
assert tables.LeafRow.__tablename__ in SQLModel.metadata.tables
with context.begin_transaction():
    context.run_migrations()
