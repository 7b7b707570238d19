"""Machines remember the template and the image that they were made from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Of machines that were launched before, both stay unknown. The defaults stay too, so that no table is copied."""
    op.add_column("instances", sa.Column("template", sa.String(255), nullable=False, server_default=""))
    op.add_column("instances", sa.Column("image", sa.String(255), nullable=False, server_default=""))
