"""Images, security groups, templates and deployments on disk."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlmodel import Session, col, select

from twinline_kit import db
from twinline_kit.errors import NotFound
from twinline_launcher.errors import DeploymentNotFound, ImageNotFound, SecurityGroupNotFound, TemplateNotFound
from twinline_launcher.models import Deployment, Image, SecurityGroup, Template

Row = TypeVar("Row", Image, SecurityGroup, Template, Deployment)

_MISSING: Mapping[type[Any], tuple[type[NotFound], str]] = {
    Image: (ImageNotFound, "image"),
    SecurityGroup: (SecurityGroupNotFound, "security group"),
    Template: (TemplateNotFound, "template"),
    Deployment: (DeploymentNotFound, "deployment"),
}


class CatalogStore:
    """What servers are made from, by name."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def apply(self, row: Row) -> Row:
        """Store `row` in place of an earlier one of its name; one that says the same is left as it is."""
        table, values = type(row), row.model_dump()
        content = {name: value for name, value in values.items() if name not in ("name", "update_time")}
        with Session(self._engine, expire_on_commit=False) as session:
            before = session.get(table, row.name)
            if before and all(getattr(before, name) == value for name, value in content.items()):
                return before
            new = session.execute(db.insert_ignore(table, self._engine).values(values).returning(col(table.name)))
            if new.scalar() is None:
                session.execute(sa.update(table).where(col(table.name) == row.name).values(values))
            session.commit()
            return row

    def get(self, table: type[Row], name: str) -> Row:
        """The row of that name, else the error of its kind."""
        with Session(self._engine) as session:
            if row := session.get(table, name):
                return row
        error, noun = _MISSING[table]
        raise error(f"no {noun} {name}: apply it first", name=name)

    def find(self, table: type[Row], names: Sequence[str]) -> dict[str, Row]:
        """Those of `names` that exist."""
        with Session(self._engine) as session:
            return {row.name: row for row in session.exec(select(table).where(col(table.name).in_(names)))}

    def page(self, table: type[Row], *, after: str, limit: int) -> Sequence[Row]:
        """At most `limit` rows whose names follow `after`, by name."""
        with Session(self._engine) as session:
            following = select(table).where(col(table.name) > after).order_by(col(table.name))
            return session.exec(following.limit(limit)).all()
