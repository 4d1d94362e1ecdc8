"""The keys that stored secrets are encrypted under: `portal keys status | rotate`."""

import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from portal.cli import base
from portal.domain.principals import OPERATOR, Principal
from portal.services.secrets import rotation
from portal.services.secrets.rotation import BROKEN, Batch, KeyUse, Position, Unreadable
from portal.store.database import Database

UNREADABLE = 1
OUTSTANDING = 3
_TRIES = 10
T = TypeVar("T")


@click.command()
@click.option(
    "--verify", is_flag=True, help="Open each value, too, and name those that cannot be read."
)
def status(verify: bool) -> None:
    """Count stored secrets by key. Ends with 0 when all are under the newest key, 3 when some are
    under an older one, 1 when some cannot be read."""
    database = base.connect(base.load())
    with database.session() as session:
        uses = rotation.count_values(session, OPERATOR)
    for use in uses:
        click.echo(_line(use))
    lost = any(use.total for use in uses if not use.in_ring)
    if verify:
        unreadable = [
            row for batch in _each_batch(database, rotation.check_some) for row in batch.unreadable
        ]
        _report(unreadable)
        lost = lost or bool(unreadable)
    sys.exit(UNREADABLE if lost else OUTSTANDING if _outstanding(uses) else 0)


@click.command()
@click.option("--dry-run", is_flag=True, help="Count only.")
def rotate(dry_run: bool) -> None:
    """Re-encrypt every stored secret under the newest key, while the portal serves.

    May be stopped at any moment and run again. Ends with 1 when some values cannot be read, with 3
    when some are left.
    """
    database = base.connect(base.load())
    with database.session() as session:
        due = _outstanding(rotation.count_values(session, OPERATOR))
    click.echo(f"{sum(due.values())} values are under older keys{_by_key(due)}.", err=True)
    if dry_run:
        return
    _record(database, "keys rotation begun", due=due)
    with _stoppable() as stopped:
        done, unreadable = _rotated(database, stopped, sum(due.values()))
    action = "keys rotation stopped" if stopped.is_set() else "keys rotated"
    _record(database, action, resealed=dict(done), unreadable=len(unreadable))
    click.echo(f"{sum(done.values())} values were re-encrypted{_by_key(done)}.")
    _report(unreadable)
    if stopped.is_set():
        click.echo("Stopped. What is done is done; to go on, run: portal keys rotate", err=True)
        sys.exit(OUTSTANDING)
    with database.session() as session:
        left = sum(_outstanding(rotation.count_values(session, OPERATOR)).values())
    readable_left = left - sum(row.key_in_ring for row in unreadable)
    if readable_left > 0:
        click.echo(
            f"{readable_left} values were in use meanwhile. Run again: portal keys rotate", err=True
        )
    sys.exit(UNREADABLE if unreadable else OUTSTANDING if readable_left > 0 else 0)


def check(database: Database, *, without_secrets: bool) -> None:
    """Warn of keys that stored secrets need and the ring lacks; end where it opens none of them."""
    with database.session() as session:
        uses = rotation.count_values(session, OPERATOR)
        opens = rotation.opens_something(session, OPERATOR)
    lost = [use for use in uses if use.total and not use.in_ring]
    for use in lost:
        click.echo(f"Warning: {_line(use)}", err=True)
    if any(use.stored for use in uses) and not opens and not without_secrets:
        sys.exit(
            "PORTAL_ENCRYPTION_KEYS opens none of the secrets that this database holds: it is"
            " another ring. Put back the keys that they were stored under (portal keys status names"
            " them), or start with --without-secrets."
        )


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """An event that is set when somebody asks this process to end."""
    stopped = threading.Event()
    before = {
        name: signal.signal(name, lambda *_: stopped.set())
        for name in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stopped
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _rotated(
    database: Database, stopped: threading.Event, due: int
) -> tuple[Counter[str], list[Unreadable]]:
    """Walk over everything until a walk finds nothing more to do: what was re-encrypted, what could
    not be read."""
    done: Counter[str] = Counter()
    with click.progressbar(length=due, label="Re-encrypting", file=sys.stderr) as bar:
        while True:
            before = done.total()
            missed = 0
            unreadable: list[Unreadable] = []
            for batch in _each_batch(database, rotation.reseal_some, writes=True):
                done.update(batch.resealed)
                missed += batch.missed
                unreadable += batch.unreadable
                bar.update(sum(batch.resealed.values()))
                if stopped.is_set():
                    break
            if stopped.is_set() or (done.total() == before and not missed):
                return done, unreadable


def _each_batch(
    database: Database,
    step: Callable[[Session, Principal, Position], Batch],
    *,
    writes: bool = False,
) -> Iterator[Batch]:
    """Each step in a transaction of its own."""
    position: Position | None = Position()
    while position is not None:
        here = position
        batch = _committed(database, lambda session: step(session, OPERATOR, here), writes=writes)  # noqa: B023 - run at once
        yield batch
        position = batch.position


def _record(database: Database, action: str, **counts: object) -> None:
    def record(session: Session) -> None:
        rotation.record_rotation(session, OPERATOR, action, **counts)

    _committed(database, record, writes=True)


def _committed(database: Database, work: Callable[[Session], T], *, writes: bool) -> T:
    """What `work` answers; where others hold SQLite's lock for too long, it is tried again."""
    for _ in range(_TRIES):
        try:
            with database.session(writes=writes) as session:
                result = work(session)
                session.commit()
                return result
        except OperationalError:
            continue
    raise click.ClickException(
        "The database does not answer. What is done is done; run the command again."
    )


def _outstanding(uses: list[KeyUse]) -> dict[str, int]:
    return {
        use.key_id: use.total for use in uses if use.in_ring and not use.is_newest and use.total
    }


def _by_key(counts: dict[str, int] | Counter[str]) -> str:
    return (
        f" ({', '.join(f'{key_id}: {count}' for key_id, count in counts.items())})"
        if counts
        else ""
    )


def _line(use: KeyUse) -> str:
    kinds = ", ".join(f"{name} {count}" for name, count in use.values.items())
    if use.key_id == BROKEN:
        return f"(broken)  {use.total} values that name no key: {kinds}"
    if not use.in_ring:
        return (
            f"{use.key_id}  {use.total} values cannot be read, the key is not in the ring: {kinds}"
        )
    if use.is_newest:
        return f"{use.key_id}  newest, {use.total} values{': ' * bool(kinds)}{kinds}"
    if not use.total:
        return f"{use.key_id}  0 values; may be retired, unless a backup that you keep needs it"
    return f"{use.key_id}  {use.total} values to re-encrypt: {kinds}"


def _report(unreadable: list[Unreadable]) -> None:
    for row in unreadable:
        click.echo(
            f"cannot be read: {row.table} {' / '.join(filter(None, row.ids))}, {row.field}:"
            f" {row.because}"
        )
