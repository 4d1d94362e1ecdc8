"""Migrations: up and down on both databases, with rows in every table, and at their head what the
models describe."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, Table, inspect, select, text

from portal.app import open_database
from portal.domain.principals import OPERATOR
from portal.services.audit import verification
from portal.store import schema
from portal.store.database import Database
from portal.store.models import Base
from tests.conftest import make_settings
from tests.support.factories import make_server
from tests.support.peers import ROOT

TABLES = set(Base.metadata.tables)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with nothing in it, of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'portal.db'}"
    else:
        url = request.getfixturevalue("own_postgres_url").replace(
            "postgresql://", "postgresql+psycopg://"
        )
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


SAMPLES: dict[type, Callable[[int], Any]] = {
    bool: lambda number: number == 1,
    int: lambda number: number,
    float: lambda number: number + 0.5,
    bytes: lambda number: b"\0sealed %d" % number,
    datetime: lambda number: datetime(2026, 1, number, 12, 30, tzinfo=UTC),
    dict: lambda number: {"nested": [number, None, "Ω’"]},
}


def reflected(database: Database) -> list[Table]:
    """The tables as they are now, those that others refer to first."""
    found = MetaData()
    found.reflect(database.engine)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def sample(column: Column[Any], number: int) -> Any:
    """A value for a column: of row 1 something everywhere, of row 2 nothing where that may be."""
    if column.nullable and number == 2:
        return None
    if column.foreign_keys:
        return sample(next(iter(column.foreign_keys)).column, number)
    make = SAMPLES.get(column.type.python_type)
    return (
        make(number) if make else f"{column.name} {number}"[: getattr(column.type, "length", None)]
    )


def fill(database: Database) -> None:
    """Two rows in every table that is empty."""
    with database.engine.begin() as connection:
        for table in reflected(database):
            if connection.execute(select(table)).first() is None:
                rows = [
                    {column.name: sample(column, number) for column in table.columns}
                    for number in (1, 2)
                ]
                connection.execute(table.insert(), rows)


def stored(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables."""
    with database.engine.connect() as connection:
        return {
            table.name: [
                dict(row)
                for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()
            ]
            for table in reflected(database)
        }


def assert_kept(
    before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]
) -> None:
    """What has its place before and after is the same."""
    for name in before.keys() & after.keys():
        assert len(after[name]) == len(before[name]), name
        for old, new in zip(before[name], after[name], strict=True):
            common = old.keys() & new.keys()
            assert {key: new[key] for key in common} == {key: old[key] for key in common}, name


def test_up_makes_every_table_and_down_leaves_none(empty: Database) -> None:
    assert not schema.is_at_head(empty.engine)
    schema.upgrade(empty.engine)
    assert schema.is_at_head(empty.engine)
    assert tables_of(empty) == TABLES
    schema.downgrade(empty.engine, "base")
    assert tables_of(empty) == set()
    schema.upgrade(empty.engine)
    assert tables_of(empty) == TABLES


def test_who_issued_a_key_is_read_from_the_audit_log(empty: Database) -> None:
    schema.upgrade(empty.engine, "0009")
    tables = {table.name: table for table in reflected(empty)}

    def add(name: str, number: int, **fields: object) -> None:
        row = {column.name: sample(column, number) for column in tables[name].columns}
        with empty.engine.begin() as connection:
            connection.execute(tables[name].insert(), row | fields)

    add("users", 1)
    add("teams", 1)
    for number, key_id in enumerate(("lent", "of-the-operator", "of-nobody-knows-whom"), start=1):
        add("api_keys", number, key_id=key_id, user_id=None, team_id=None)
    said = {"action": "API key issued", "target_kind": "key"}
    add("audit_events", 1, **said, target_id="lent", actor_id="promo")
    add("audit_events", 2, **said, target_id="of-the-operator", actor_id=None)
    schema.upgrade(empty.engine)
    with empty.engine.connect() as connection:
        found = dict(connection.execute(text("select key_id, issued_by from api_keys")).all())
    assert found == {"lent": "promo", "of-the-operator": None, "of-nobody-knows-whom": None}


def test_up_again_changes_nothing(empty: Database) -> None:
    schema.upgrade(empty.engine)
    schema.upgrade(empty.engine)
    assert schema.is_at_head(empty.engine)


def test_the_models_are_what_the_migrations_make(empty: Database) -> None:
    schema.upgrade(empty.engine)
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_foreign_keys_hold(empty: Database) -> None:
    """SQLite checks them only where a connection says so."""
    schema.upgrade(empty.engine)
    with empty.engine.connect() as connection, pytest.raises(Exception, match=r"(?i)foreign key"):
        connection.execute(
            text(
                "INSERT INTO team_members (team_id, user_id, role) VALUES ('none', 'none', 'user')"
            ),
        )


def test_constraints_and_indexes_have_the_names_that_migrations_can_find_again(
    empty: Database,
) -> None:
    schema.upgrade(empty.engine)
    seen = inspect(empty.engine)
    for table in TABLES:
        assert seen.get_pk_constraint(table)["name"] == f"pk_{table}"
        for key in seen.get_foreign_keys(table):
            assert (
                key["name"] == f"fk_{table}_{key['constrained_columns'][0]}_{key['referred_table']}"
            )
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
        "chain_keys.sealed: BLOB",
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


def test_every_revision_keeps_what_is_stored_on_the_way_up_and_down(empty: Database) -> None:
    """Each table has rows before each step that could lose them."""
    revisions = [
        found.revision for found in ScriptDirectory(str(ROOT / "migrations")).walk_revisions()
    ][::-1]
    before: dict[str, list[dict[str, Any]]] = {}
    for revision in revisions:
        schema.upgrade(empty.engine, revision)
        assert_kept(before, stored(empty))
        fill(empty)
        before = stored(empty)
    assert before.keys() == TABLES
    for revision in ["base", *revisions][-2::-1]:
        schema.downgrade(empty.engine, revision)
        after = stored(empty)
        assert_kept(before, after)
        before = after
    assert before == {}


def test_after_a_step_back_the_audit_trail_is_whole_and_goes_on(empty: Database) -> None:
    """What was chained before the step is told as older than the chain, not as missing from it."""
    schema.upgrade(empty.engine)
    portal = open_database(make_settings(empty.engine.url.render_as_string(hide_password=False)))
    with portal.session(writes=True) as session:
        make_server(session, "before")
        session.commit()
        assert verification.verify(session, OPERATOR).holds == 1
        session.commit()
    schema.downgrade(empty.engine, "0001")
    schema.upgrade(empty.engine)
    with portal.session(writes=True) as session:
        assert verification.last_verification(session, OPERATOR) is None
        make_server(session, "after")
        session.commit()
        found = verification.verify(session, OPERATOR)
        session.commit()
    portal.engine.dispose()
    # One event seals the earlier ones; the other is new.
    assert (found.fault, found.holds, found.earlier) == (None, 2, 2)
