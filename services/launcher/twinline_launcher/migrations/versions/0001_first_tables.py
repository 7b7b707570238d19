"""First tables."""

import sqlalchemy as sa
from alembic import op

from twinline_kit.db import UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _catalog()
    op.create_table(
        "servers",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("deployment", sa.String(255), nullable=False),
        sa.Column("template", sa.String(255), nullable=False),
        sa.Column("image", sa.String(255), nullable=False),
        sa.Column("instance_type", sa.String(64), nullable=False),
        sa.Column("cloud_key", sa.String(255), nullable=False),
        sa.Column("security_groups", sa.JSON(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("current", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcDateTime(), nullable=False),
        sa.Column("update_time", UtcDateTime(), nullable=False),
        sa.UniqueConstraint("name", name="uq_servers_name"),
    )
    _instances()
    op.create_table(
        "transitions",
        sa.Column("server_id", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("instance_id", sa.String(64), nullable=False),
        sa.Column("before", sa.String(32), nullable=False),
        sa.Column("after", sa.String(32), nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("time", UtcDateTime(), nullable=False),
    )
    op.create_index("ix_transitions_instance_id", "transitions", ["instance_id"])


def _catalog() -> None:
    op.create_table(
        "images",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("cloud", sa.String(64), nullable=False),
        sa.Column("cloud_image", sa.String(255), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("update_time", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "security_groups",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("cloud", sa.String(64), nullable=False),
        sa.Column("open_ports", sa.JSON(), nullable=False),
        sa.Column("update_time", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "templates",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("boot", sa.JSON(), nullable=False),
        sa.Column("operational", sa.JSON(), nullable=False),
        sa.Column("decommission", sa.JSON(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("update_time", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "deployments",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("update_time", UtcDateTime(), nullable=False),
    )


def _instances() -> None:
    op.create_table(
        "instances",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("server_id", sa.String(64), nullable=False),
        sa.Column("server_name", sa.String(128), nullable=False),
        sa.Column("launch_request", sa.String(128), nullable=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("state_time", UtcDateTime(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("deployment", sa.String(255), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("cloud", sa.String(64), nullable=False),
        sa.Column("cloud_image", sa.String(255), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("generation_assumed", sa.Boolean(), nullable=False),
        sa.Column("instance_type", sa.String(64), nullable=False),
        sa.Column("hourly_micros", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("cloud_key", sa.String(64), nullable=False),
        sa.Column("cloud_key_name", sa.String(255), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("security_groups", sa.JSON(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
        sa.Column("launch_time", UtcDateTime(), nullable=False),
        sa.Column("boot", sa.JSON(), nullable=False),
        sa.Column("decommission", sa.JSON(), nullable=False),
        sa.Column("stranding", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("cloud_id", sa.String(255), nullable=False),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("username", sa.String(64), nullable=False),
        sa.Column("host_key", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.String(128), nullable=False),
        sa.Column("run_time", UtcDateTime(), nullable=True),
        sa.Column("terminate_time", UtcDateTime(), nullable=True),
        sa.Column("target", sa.String(64), nullable=False),
        sa.Column("due_time", UtcDateTime(), nullable=True),
        sa.Column("lease_owner", sa.String(64), nullable=False),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name="fk_instances_server_id"),
        sa.UniqueConstraint("launch_request", name="uq_instances_launch_request"),
    )
    op.create_index("ix_instances_due_time", "instances", ["due_time"])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("transitions", "instances", "servers", "deployments", "templates", "security_groups", "images"):
        op.drop_table(table)
