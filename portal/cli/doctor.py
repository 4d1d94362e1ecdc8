"""Whether all is well: `portal doctor`."""

import sys
from pathlib import Path

import click

from portal.cli import base
from portal.store import schema


@click.command()
def doctor() -> None:
    """Check settings, database and file rights, and say what to do."""
    from portal.app import open_database

    settings = base.load()
    database = open_database(settings)
    checks = [("settings", True, "read"), ("database", database.answers(), "answers")]
    checks.append(("migrations", database.answers() and schema.is_at_head(database.engine), "at head"))
    if settings.config:
        checks.append(("config file", Path(settings.config).is_file(), str(settings.config)))
    lines = [f"{'ok ' if good else 'BAD'} {name}: {note if good else 'not ' + note}" for name, good, note in checks]
    click.echo("\n".join([*lines, *(f"    {fact}" for fact in settings.sign_in_facts)]))
    sys.exit(0 if all(good for _, good, _ in checks) else 1)
