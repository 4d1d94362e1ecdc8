"""What a database holds at one moment, put back as often as a test wants to begin there again."""

from collections.abc import Callable
from pathlib import Path

from portal.store.database import Database
from portal.store.models import Base


def remember(database: Database) -> Callable[[], None]:
    """Take all that is stored now; what is answered puts it back, when nobody is writing."""
    return (
        _remember_file(database)
        if database.engine.dialect.name == "sqlite"
        else _remember_rows(database)
    )


def _remember_file(database: Database) -> Callable[[], None]:
    """SQLite is one file, once the last connection that closes has written its journal into it."""
    path = Path(str(database.engine.url.database))
    database.engine.dispose()
    assert list(path.parent.glob(f"{path.name}-*")) == [], "somebody else has the database open"
    content = path.read_bytes()

    def put_back() -> None:
        database.engine.dispose()
        for journal in path.parent.glob(f"{path.name}-*"):
            journal.unlink()
        path.write_bytes(content)

    return put_back


def _remember_rows(database: Database) -> Callable[[], None]:
    """PostgreSQL gets a copy of each table that has rows, and a function that puts them back.

    One round trip, and plans that stay with the connection: this is done before every test.
    """
    tables = [table.name for table in Base.metadata.sorted_tables]
    with database.engine.begin() as connection:
        run = connection.exec_driver_sql
        run("CREATE SCHEMA kept")
        filled = [name for name in tables if run(f"SELECT EXISTS (SELECT FROM {name})").scalar()]
        for name in filled:
            run(f"CREATE TABLE kept.{name} AS TABLE {name}")
        steps = [f"DELETE FROM {name};" for name in reversed(tables)]
        steps += [f"INSERT INTO {name} SELECT * FROM kept.{name};" for name in filled]
        run(
            "CREATE FUNCTION kept.put_back() RETURNS void LANGUAGE plpgsql AS $$ BEGIN"
            f" {' '.join(steps)} END $$"
        )

    def put_back() -> None:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("SELECT kept.put_back()")

    return put_back
