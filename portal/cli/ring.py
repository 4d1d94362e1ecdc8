"""The keys that encrypt stored secrets: `portal keys status | rotate`."""

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
    "--verify",
    is_flag=True,
    help="Also decrypt each value, and list those that cannot be decrypted.",
)
def status(verify: bool) -> None:
    """Count stored secrets by key.

    Exits with 0 if all are under the newest key, 3 if some are under an older one, 1 if some cannot
    be decrypted.
    """
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
    sys.exit(_status(is_lost=lost, is_left=bool(_outstanding(uses))))


@click.command()
@click.option("--dry-run", is_flag=True, help="Count only.")
def rotate(dry_run: bool) -> None:
    """Re-encrypt all stored secrets with the newest key, while the portal runs.

    Can be stopped and run again at any time. Exits with 1 if some values cannot be decrypted, 3 if
    some are left.
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
        click.echo(
            "Stopped. Completed values are kept; to continue, run: portal keys rotate", err=True
        )
        sys.exit(OUTSTANDING)
    with database.session() as session:
        left = sum(_outstanding(rotation.count_values(session, OPERATOR)).values())
    readable_left = left - sum(row.key_in_ring for row in unreadable)
    if readable_left > 0:
        click.echo(f"{readable_left} values were in use. Run again: portal keys rotate", err=True)
    sys.exit(_status(is_lost=bool(unreadable), is_left=readable_left > 0))


def check(database: Database, *, without_secrets: bool) -> None:
    """Warn about keys that stored secrets need; exit if the ring decrypts none of them."""
    with database.session() as session:
        uses = rotation.count_values(session, OPERATOR)
        opens = rotation.opens_something(session, OPERATOR)
    lost = [use for use in uses if use.total and not use.in_ring]
    for use in lost:
        click.echo(f"Warning: {_line(use)}", err=True)
    if any(use.stored for use in uses) and not opens and not without_secrets:
        sys.exit(
            "PORTAL_ENCRYPTION_KEYS cannot decrypt any secret in this database: it is another key"
            " ring. Add the keys that the secrets need (portal keys status lists them), or start"
            " with --without-secrets."
        )


def _status(*, is_lost: bool, is_left: bool) -> int:
    if is_lost:
        return UNREADABLE
    return OUTSTANDING if is_left else 0


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Yield an event that is set when this process gets SIGTERM or SIGINT."""
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
    """Repeat until nothing is left; return counts of re-encrypted and unreadable values."""
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
    """Run each step in its own transaction."""
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
    """Return the result of `work`; retry while another process holds SQLite's lock."""
    for _ in range(_TRIES):
        try:
            with database.session(writes=writes) as session:
                result = work(session)
                session.commit()
                return result
        except OperationalError:
            continue
    raise click.ClickException(
        "The database does not respond. Completed values are kept; run the command again."
    )


def _outstanding(uses: list[KeyUse]) -> dict[str, int]:
    return {
        use.key_id: use.total for use in uses if use.in_ring and not use.is_newest and use.total
    }


def _by_key(counts: dict[str, int] | Counter[str]) -> str:
    if not counts:
        return ""
    return f" ({', '.join(f'{key_id}: {count}' for key_id, count in counts.items())})"


def _line(use: KeyUse) -> str:
    kinds = ", ".join(f"{name} {count}" for name, count in use.values.items())
    if use.key_id == BROKEN:
        return f"(corrupt)  {use.total} values without a key id: {kinds}"
    if not use.in_ring:
        return (
            f"{use.key_id}  {use.total} values cannot be decrypted, because the key is not in the"
            f" ring: {kinds}"
        )
    if use.is_newest:
        return f"{use.key_id}  newest, {use.total} values{': ' * bool(kinds)}{kinds}"
    if not use.total:
        return f"{use.key_id}  0 values; can be removed, unless a backup needs it"
    return f"{use.key_id}  {use.total} values to re-encrypt: {kinds}"


def _report(unreadable: list[Unreadable]) -> None:
    for row in unreadable:
        click.echo(
            f"cannot be decrypted: {row.table} {' / '.join(filter(None, row.ids))}, {row.field}:"
            f" {row.because}"
        )
