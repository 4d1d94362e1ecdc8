"""Migrating a database to the schema of this code, and checking its schema (Alembic)."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from portal.resources import folder
from portal.store.database import Database

_MIGRATIONS = folder("migrations")
_ADVISORY_LOCK = 7_204_917_001


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Run the migrations up to `revision`; if several processes start at once, one does it."""
    with _migrating(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("set local lock_timeout = 0"))  # wait as long as necessary
            connection.execute(
                text("select pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK}
            )
        command.upgrade(_config(connection), revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Run the migrations down to `revision` (`base` removes everything)."""
    with _migrating(engine) as connection:
        command.downgrade(_config(connection), revision)


def is_at_head(engine: Engine) -> bool:
    """Return whether the database has exactly the schema of this code."""
    return revision(engine) == ScriptDirectory(str(_MIGRATIONS)).get_current_head()


def serves(engine: Engine) -> bool:
    """Return whether this code works with the schema: its own, or that of a newer version.

    A newer schema keeps what the previous version needs, because an upgrade migrates the database
    before it replaces the processes.
    """
    found = revision(engine)
    return is_at_head(engine) or (found is not None and not knows(found))


def fault_of(database: Database) -> str | None:
    """Return why this code cannot work with the database now, or None."""
    if not database.answers():
        return "not responding"
    return None if serves(database.engine) else "schema is not up to date: run portal db upgrade"


def revision(engine: Engine) -> str | None:
    """Return the revision of the database's schema; None if it has none."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def knows(wanted: str) -> bool:
    """Return whether this code has the migration `wanted`; False for one of a newer version."""
    return wanted in {
        script.revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()
    }


@contextmanager
def _migrating(engine: Engine) -> Iterator[Connection]:
    """Yield a connection with one transaction for all migrations.

    SQLite changes a table by recreating it, and dropping the old one must not delete rows that
    refer to it, so foreign keys are not enforced meanwhile.
    """
    with engine.connect().execution_options(portal_writes=True) as connection:
        sqlite = (
            connection.connection.driver_connection if connection.dialect.name == "sqlite" else None
        )
        if sqlite is not None:
            sqlite.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                yield connection
        finally:
            if sqlite is not None:
                sqlite.execute("PRAGMA foreign_keys=ON")


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config
