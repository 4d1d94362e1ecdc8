"""The database schema: `portal db`."""

import click

from portal.cli import base
from portal.store import schema


@click.group()
def db() -> None:
    """Return the database schema."""


@db.command()
@click.argument("revision", default="head")
def upgrade(revision: str) -> None:
    """Upgrade the schema to REVISION (head)."""
    database = base.opened(base.load())
    schema.upgrade(database.engine, revision)
    click.echo(f"The database is at {revision}.")
    if schema.is_at_head(database.engine):
        base.reconcile(database)


@db.command()
@click.argument("revision")
def downgrade(revision: str) -> None:
    """Downgrade the schema to REVISION (`base` removes everything)."""
    schema.downgrade(base.opened(base.load()).engine, revision)
    click.echo(f"The database is at {revision}.")
