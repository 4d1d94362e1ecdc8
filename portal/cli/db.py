"""The schema: `portal db`."""

import click

from portal.cli import base
from portal.store import schema


@click.group()
def db() -> None:
    """The database's schema."""


@db.command()
@click.argument("revision", default="head")
def upgrade(revision: str) -> None:
    """Bring the schema up to REVISION (head)."""
    database = base.opened(base.load())
    schema.upgrade(database.engine, revision)
    click.echo(f"The database is at {revision}.")
    if schema.is_at_head(database.engine):
        base.reconcile(database)


@db.command()
@click.argument("revision")
def downgrade(revision: str) -> None:
    """Bring the schema down to REVISION (`base` removes everything)."""
    schema.downgrade(base.opened(base.load()).engine, revision)
    click.echo(f"The database is at {revision}.")
