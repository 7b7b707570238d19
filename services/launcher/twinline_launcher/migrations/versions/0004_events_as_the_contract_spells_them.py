"""Events are spelt with underscores, as in the contract."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Spell those of old transitions so."""
    op.execute("UPDATE transitions SET event = replace(event, ' ', '_')")
