"""The tables that the migrations make."""

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from twinline_agent_gateway.models import Table
from twinline_kit import db


def test_the_migrations_make_the_tables_that_the_code_expects(database_url: str) -> None:
    engine = db.open(database_url)
    db.migrate(engine, "twinline_agent_gateway")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    engine.dispose()
