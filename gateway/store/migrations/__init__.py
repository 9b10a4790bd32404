"""Alembic revisions of the control database, oldest first; numbered, so that their order can be told."""
