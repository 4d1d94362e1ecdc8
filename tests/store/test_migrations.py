"""Migrations: up and down on both databases, and at their head the schema that the models describe."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from portal.store import schema
from portal.store.database import Database
from portal.store.models import Base

TABLES = set(Base.metadata.tables)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with nothing in it, of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'portal.db'}"
    else:
        url = request.getfixturevalue("own_postgres_url").replace("postgresql://", "postgresql+psycopg://")
    database = Database(url, {})
    _clear(database)
    yield database
    _clear(database)
    database.engine.dispose()


def _clear(database: Database) -> None:
    if database.engine.dialect.name == "postgresql":
        with database.engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))


def tables_of(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_up_makes_every_table_and_down_leaves_none(empty: Database) -> None:
    assert not schema.is_at_head(empty.engine)
    schema.upgrade(empty.engine)
    assert schema.is_at_head(empty.engine)
    assert tables_of(empty) == TABLES
    schema.downgrade(empty.engine, "base")
    assert tables_of(empty) == set()
    schema.upgrade(empty.engine)
    assert tables_of(empty) == TABLES


def test_up_again_changes_nothing(empty: Database) -> None:
    schema.upgrade(empty.engine)
    schema.upgrade(empty.engine)
    assert schema.is_at_head(empty.engine)


def test_the_models_are_what_the_migrations_make(empty: Database) -> None:
    schema.upgrade(empty.engine)
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_foreign_keys_hold(empty: Database) -> None:
    """SQLite checks them only where a connection says so."""
    schema.upgrade(empty.engine)
    with empty.engine.connect() as connection, pytest.raises(Exception, match=r"(?i)foreign key"):
        connection.execute(
            text("INSERT INTO team_members (team_id, user_id, role) VALUES ('none', 'none', 'user')"),
        )


def test_constraints_and_indexes_have_the_names_that_migrations_can_find_again(empty: Database) -> None:
    schema.upgrade(empty.engine)
    seen = inspect(empty.engine)
    for table in TABLES:
        assert seen.get_pk_constraint(table)["name"] == f"pk_{table}"
        for key in seen.get_foreign_keys(table):
            assert key["name"] == f"fk_{table}_{key['constrained_columns'][0]}_{key['referred_table']}"
        for unique in seen.get_unique_constraints(table):
            assert str(unique["name"]).startswith(f"uq_{table}_")
        for index in seen.get_indexes(table):
            assert str(index["name"]).startswith((f"ix_{table}_", f"uq_{table}_"))


def test_what_is_secret_stands_only_in_binary_columns() -> None:
    """A column for a secret that somebody adds as text would be stored as it is."""
    words = ("secret", "credential", "password", "token", "sealed")
    suspicious = {
        f"{table.name}.{column.name}: {column.type}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if any(word in column.name for word in words)
    }
    assert suspicious == {
        "import_drafts.sealed: BLOB",
        "oauth_client_registrations.sealed: BLOB",
        "oauth_flows.sealed: BLOB",
        "proposals.sealed: BLOB",
        "server_secrets.sealed: BLOB",
        "server_variables.sealed: BLOB",
        "servers.token_validation: JSON",
        "shared_tokens.sealed: BLOB",
        "temporary_servers.sealed: BLOB",
        "user_credentials.sealed: BLOB",
        "user_variables.sealed: BLOB",
        "users.must_change_password: BOOLEAN",
        "users.password_hash: TEXT",
    }
