"""What every command needs: the settings, the database, and a transaction as the operator."""

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
    """The settings of this process, or an end with a line for each that is wrong."""
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
    """The database as it is. A file that is made from now on is its owner's alone: it holds hashes
    and ciphertext."""
    from portal.app import open_database

    if settings.embedded:
        os.umask(0o077)
    try:
        return open_database(settings)
    except BadSettings as error:
        _end(error)


def connect(settings: Settings) -> Database:
    """The database, upgraded and compared with its journal where it is SQLite, refused where it is
    not at head or beyond."""
    database = opened(settings)
    if settings.embedded:
        schema.upgrade(database.engine)
        if _is_to_be_compared(database):
            reconcile(database)
    elif not database.answers():
        sys.exit("The database does not answer. Check PORTAL_DATABASE_URL.")
    elif not schema.serves(database.engine):
        sys.exit("The database is not at head. Run: portal db upgrade")
    return database


@contextmanager
def as_it_is() -> Iterator[None]:
    """Within this, `connect` does not compare the database with its journal, which writes down what
    it finds, unless that was never done before."""
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
    """Bring the database up to its revocation journal, and say what that took."""
    from portal.services.operations import revocations

    with database.session(writes=True) as session:
        found = revocations.reconcile(session, OPERATOR)
    for line in found.lines:
        click.echo(line, err=True)


def in_transaction(work: Any) -> Any:
    """What `work(session)` answers, committed; a refusal is on record, and any other fault ends the
    command."""
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
