"""The request of every verb is kept with the step that it made; that of a launch was kept with the machine."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Keep the requests of launches, at their new place."""
    op.add_column("transitions", sa.Column("request_id", sa.String(128), nullable=True))
    op.create_index("ix_transitions_request_id", "transitions", ["request_id"], unique=True)
    op.execute(
        "UPDATE transitions SET request_id = (SELECT launch_request FROM instances WHERE instances.id = instance_id) "
        "WHERE event = 'launch'"
    )
    with op.batch_alter_table("instances") as instances:
        instances.drop_constraint("uq_instances_launch_request", type_="unique")
        instances.drop_column("launch_request")
