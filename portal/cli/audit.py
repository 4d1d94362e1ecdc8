"""The record: `portal audit`."""

import sys

import click

from portal.cli import base
from portal.domain.principals import OPERATOR


@click.group()
def audit() -> None:
    """The record of what was done and refused."""


@audit.command("verify")
def verify_audit() -> None:
    """Walk along the chain of events; ends with 1 and names the first event that does not hold.

    It ends with 3 where the events hold, and others are missing that nobody has accepted: see
    portal audit accept.
    """
    from portal.services.audit import trail

    with base.as_it_is():
        found = base.in_transaction(lambda session: trail.verify(session, OPERATOR))
    if found.earlier:
        click.echo(f"{found.earlier} events are older than the chain.")
    click.echo(f"{found.holds} events hold.")
    for note in found.notes:
        click.echo(note)
    if found.fault:
        click.echo(found.fault, err=True)
        sys.exit(1)
    if found.unaccepted:
        sys.exit(3)


@audit.command("accept")
@click.option("--event", type=int, required=True, help="The number of the event that found it.")
def accept_missing(event: int) -> None:
    """Accept that events are missing where an older database was found; this is on record, too."""
    from portal.services.audit import trail

    with base.as_it_is():
        base.in_transaction(lambda session: trail.accept(session, OPERATOR, event))
    click.echo(f"Accepted: what event {event} found is known.")
