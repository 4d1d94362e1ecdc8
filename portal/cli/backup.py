"""Backups of the database: `portal backup | restore`."""

import json
import os
import shlex
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from sqlalchemy.engine import URL, make_url

from portal.cli import base
from portal.domain.principals import OPERATOR
from portal.services.audit import verification
from portal.services.operations import backups, revocations
from portal.services.secrets import rotation
from portal.settings import Settings
from portal.store import copying, schema
from portal.store.database import Database
from portal.store.models import now

_FORMAT = 1


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(file: Path) -> None:
    """Copy the database to FILE while the portal runs, with a manifest, but without the keys."""
    settings = base.load()
    source = _sqlite_file(
        settings,
        f"pg_dump --format=custom --exclude-schema=portal_journal --file={shlex.quote(str(file))}",
    )
    database = base.connect(settings)
    for taken in (file, _manifest_of(file)):
        if taken.exists():
            raise click.ClickException(f"{taken} already exists. Choose another file name.")
    partial = file.with_name(f"{file.name}.partial")
    with _removed_at_the_end(partial):
        copying.copy(source, partial)
        manifest = _described(database, partial)
        _write(_manifest_of(file), manifest)
        os.replace(partial, file)
    with database.session(writes=True) as session:
        backups.record_backup(session, OPERATOR, sha256=manifest["sha256"], bytes=manifest["bytes"])
        session.commit()
    click.echo(f"The database was saved to {file}, and its manifest to {_manifest_of(file)}.")
    click.echo(
        f"Store the keys {', '.join(manifest['keys'])} in another place: without them no secret"
        " in the backup can be decrypted."
    )


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--force", is_flag=True, help="Replace an existing database.")
@click.option(
    "--without-secrets",
    is_flag=True,
    help="Restore even if keys are missing; the secrets under them are lost.",
)
@click.option(
    "--without-journal",
    is_flag=True,
    help="Restore without the revocation journal; API keys are dormant afterwards.",
)
def restore(file: Path, force: bool, without_secrets: bool, without_journal: bool) -> None:
    """Replace the database with FILE, in one step.

    No other process may have the database open. All sessions end, and what was revoked since the
    backup is revoked again.
    """
    settings = base.load()
    target = _sqlite_file(
        settings, f"pg_restore --clean --if-exists --single-transaction {shlex.quote(str(file))}"
    )
    if target.exists() and not force:
        raise click.ClickException(
            f"{target} already exists. Back it up, then use --force to replace it; its content"
            " will be lost."
        )
    manifest = _read_manifest(file)
    partial = target.with_name(f"{target.name}.restoring")
    os.umask(0o077)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with copying.alone(target), _removed_at_the_end(partial):
            copying.copy(file, partial)
            _check_revision(partial)
            _bring_in(
                settings,
                partial,
                manifest,
                without_secrets=without_secrets,
                without_journal=without_journal,
            )
            copying.put_in_place(partial, target)
    except copying.InUse:
        raise click.ClickException(
            "Another process has the database open. Stop portal serve and portal worker."
        ) from None
    except copying.Broken as error:
        raise click.ClickException(
            f"{file} is not a complete database ({error}). Use another backup."
        ) from None
    click.echo(
        f"{target} is now the database of {manifest['made_at']}. All users have to sign in again."
    )
    _end_again(settings)
    click.echo("Settings are as they were then. Changes since then are lost.")


def _sqlite_file(settings: Settings, instead: str) -> Path:
    """Return the database's file, or exit with the command to run `instead`.

    The command contains no password.
    """
    url = make_url(settings.database_url)
    if settings.embedded and url.database:
        return Path(url.database)
    open_parts = (url.username, None, url.host, url.port, url.database, url.query)
    address = URL.create("postgresql", *open_parts).render_as_string()
    click.echo(
        "This command is for SQLite. For PostgreSQL use its own tools; the password comes from"
        " ~/.pgpass or PGPASSWORD:",
        err=True,
    )
    click.echo(f"  {instead} --dbname='{address}'", err=True)
    sys.exit(1)


def _manifest_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.manifest.json")


def _described(database: Database, file: Path) -> dict[str, Any]:
    """Return the manifest of a backup, read from the backup itself."""
    with database.look_into(file) as session:
        facts = asdict(backups.count_content(session, OPERATOR))
    return {
        "format": _FORMAT,
        "made_at": now().isoformat(timespec="seconds"),
        "revision": _revision(file),
        **facts,
        "bytes": file.stat().st_size,
        "sha256": copying.file_digest(file),
    }


def _revision(file: Path) -> str | None:
    with closing(
        sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    ) as connection:
        try:
            found = connection.execute("select version_num from alembic_version").fetchone()
        except sqlite3.OperationalError:
            return None
    return str(found[0]) if found else None


def _write(file: Path, manifest: dict[str, Any]) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as stream:
        json.dump(manifest, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())


def _read_manifest(file: Path) -> dict[str, Any]:
    """Return the manifest of a backup, after checking that it matches the file."""
    beside = _manifest_of(file)
    try:
        manifest: dict[str, Any] = json.loads(beside.read_text())
        expected = str(manifest["sha256"])
        _ = str(manifest["made_at"])
    except (OSError, ValueError, KeyError, TypeError):
        raise click.ClickException(
            f"{beside} cannot be read. It must be next to the backup, unchanged."
        ) from None
    if manifest.get("format") != _FORMAT:
        raise click.ClickException(
            "The backup was made by a newer version of the portal. Restore it with that version."
        )
    if copying.file_digest(file) != expected:
        raise click.ClickException(
            f"{file} does not match the SHA-256 in its manifest. Use another backup."
        )
    return manifest


def _check_revision(file: Path) -> None:
    revision = _revision(file)
    if revision is None or not schema.knows(revision):
        raise click.ClickException(
            "This version of the portal does not know the backup's schema"
            f" ({revision or 'none'}). Restore it with the version that made it, or a newer one."
        )


def _check_journal(settings: Settings, *, without_journal: bool) -> bool:
    """Return whether the revocation journal is valid; exit if not, unless `without_journal`."""
    from portal.app import journal_of

    journal = journal_of(settings)
    assert journal is not None
    fault = journal.read().fault if journal.exists() else f"{journal.path} does not exist"
    if fault and not without_journal:
        raise click.ClickException(
            f"The revocation journal is missing ({fault}), so revocations since the backup are"
            f" unknown. Copy it to {journal.path}: it was next to the database. Or restore with"
            " --without-journal: then all API keys are dormant, and only Admins can sign in,"
            " until an Admin reactivates the portal."
        )
    return fault is None


def _end_again(settings: Settings) -> None:
    """Reconcile the restored database with the journal, and print the result."""
    database = base.opened(settings)
    with database.session(writes=True) as session:
        found = revocations.reconcile(session, OPERATOR, is_restored=True)
    database.engine.dispose()
    for line in found.lines:
        click.echo(line)


def _bring_in(
    settings: Settings,
    file: Path,
    manifest: dict[str, Any],
    *,
    without_secrets: bool,
    without_journal: bool,
) -> None:
    """Upgrade a copy, check its keys and audit log, and end what must not live again."""
    from portal.app import open_database

    database = open_database(
        settings.model_copy(update={"database_url": f"sqlite:///{file.absolute()}"})
    )
    schema.upgrade(database.engine)
    with database.session(writes=True) as session:
        facts = backups.count_content(session, OPERATOR)
        missing = set(facts.keys) - set(rotation.ids(session, OPERATOR)) - {rotation.BROKEN}
        if missing and not without_secrets:
            raise click.ClickException(
                "PORTAL_ENCRYPTION_KEYS lacks keys that the backup needs:"
                f" {', '.join(sorted(missing))}. Add them after the newest key, or restore with"
                " --without-secrets."
            )
        found = verification.verify(session, OPERATOR, without_keys=without_secrets, is_copy=True)
        if found.fault or dict(facts.audit) != manifest.get("audit"):
            raise click.ClickException(
                f"The audit log in the backup is not valid. {found.fault or ''}"
            )
        knows = _check_journal(settings, without_journal=without_journal)
        backups.begin_anew(
            session,
            OPERATOR,
            knows_what_ended=knows,
            made_at=manifest["made_at"],
            sha256=manifest["sha256"],
        )
        session.commit()
    database.engine.dispose()


@contextmanager
def _removed_at_the_end(file: Path) -> Iterator[None]:
    """Remove `file` and SQLite's files next to it at the end, whatever happens."""
    try:
        yield
    finally:
        for leftover in (file, Path(f"{file}-wal"), Path(f"{file}-shm"), Path(f"{file}-journal")):
            leftover.unlink(missing_ok=True)
