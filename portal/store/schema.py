"""Bringing a database to the schema of this code, and telling whether it is there (Alembic)."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from portal.resources import folder

_MIGRATIONS = folder("migrations")
_ADVISORY_LOCK = 7_204_917_001


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Run the migrations up to `revision`; several processes may start at once, one of them does
    it."""
    with _migrating(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(
                text("set local lock_timeout = 0")
            )  # who comes second waits as long as it takes
            connection.execute(
                text("select pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK}
            )
        command.upgrade(_config(connection), revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Run the migrations down to `revision` (`base` is none at all)."""
    with _migrating(engine) as connection:
        command.downgrade(_config(connection), revision)


def is_at_head(engine: Engine) -> bool:
    """Whether the database has exactly the schema of this code."""
    return revision(engine) == ScriptDirectory(str(_MIGRATIONS)).get_current_head()


def serves(engine: Engine) -> bool:
    """Whether this code can work on the database: it has the schema of this code, or of a newer
    version, which keeps what the one before needs; an upgrade migrates first and replaces the
    processes after it."""
    found = revision(engine)
    return is_at_head(engine) or (found is not None and not knows(found))


def revision(engine: Engine) -> str | None:
    """The revision of the database's schema, None where it has none."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def knows(wanted: str) -> bool:
    """Whether this code has the migrations from `wanted` on; one of a newer version it has not."""
    return wanted in {
        script.revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()
    }


@contextmanager
def _migrating(engine: Engine) -> Iterator[Connection]:
    """One transaction for all of it. SQLite changes a table by making it anew, and dropping the old
    one must not delete what refers to its rows, so foreign keys are not enforced meanwhile."""
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
