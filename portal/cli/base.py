"""Shared by all commands: the settings, the database, and a transaction as the operator."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

import click

from portal import environment
from portal.domain.errors import Forbidden, PortalError
from portal.domain.principals import OPERATOR
from portal.processes.embedded import prepare_environment
from portal.settings import BadSettings, Settings, read_settings
from portal.store import schema
from portal.store.database import Database

_COMPARES = ContextVar("compares the database with its journal", default=True)


def load(**overrides: Any) -> Settings:
    """Return the settings, or exit with a line for each invalid one."""
    given = environment.given()
    prepare_environment(given)
    try:
        return read_settings(given, **overrides)
    except BadSettings as error:
        _end(error)


def _end(error: BadSettings) -> NoReturn:
    for line in str(error).splitlines():
        click.echo(f"Setting {line}", err=True)
    sys.exit(2)


def opened(settings: Settings) -> Database:
    """Open the database as it is.

    New files are private to their owner, because they hold hashes.
    """
    from portal.app import open_database

    if settings.embedded:
        os.umask(0o077)
    try:
        return open_database(settings)
    except BadSettings as error:
        _end(error)


def connect(settings: Settings) -> Database:
    """Open the database: upgrade and reconcile SQLite; exit if PostgreSQL is not up to date."""
    database = opened(settings)
    if settings.embedded:
        schema.upgrade(database.engine)
        if _is_to_be_compared(database):
            reconcile(database)
    elif not database.answers():
        sys.exit("The database does not respond. Check PORTAL_DATABASE_URL.")
    elif not schema.serves(database.engine):
        sys.exit("The database schema is not up to date. Run: portal db upgrade")
    return database


@contextmanager
def as_it_is() -> Iterator[None]:
    """Make `connect` skip reconciling the database with its journal, except the first time.

    Reconciling would write what it finds.
    """
    token = _COMPARES.set(False)
    try:
        yield
    finally:
        _COMPARES.reset(token)


def _is_to_be_compared(database: Database) -> bool:
    from portal.services.operations import revocations

    if _COMPARES.get():
        return True
    with database.session() as session:
        return not revocations.is_begun(session, OPERATOR)


def reconcile(database: Database) -> None:
    """Reconcile the database with its revocation journal, and print the result."""
    from portal.services.operations import revocations

    with database.session(writes=True) as session:
        found = revocations.reconcile(session, OPERATOR)
    for line in found.lines:
        click.echo(line, err=True)


def in_transaction(work: Any) -> Any:
    """Return the result of `work(session)`, committed.

    Refusals are audited; errors end the command.
    """
    from portal.services.audit.events import Outcome, record

    with connect(load()).session(writes=True) as session:
        try:
            result = work(session)
        except Forbidden as error:
            session.rollback()
            command = click.get_current_context().command_path
            record(
                session,
                OPERATOR,
                command[:64],
                "route",
                None,
                outcome=Outcome.REFUSED,
                because=error.message,
            )
            session.commit()
            raise click.ClickException(error.message) from None
        except PortalError as error:
            raise click.ClickException(error.message) from None
        session.commit()
        return result
