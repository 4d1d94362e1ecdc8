"""The audit log: `portal audit`."""

import sys

import click

from portal.cli import base
from portal.domain.principals import OPERATOR


@click.group()
def audit() -> None:
    """Return the audit log."""


@audit.command("verify")
def verify_audit() -> None:
    """Verify the audit log. Exits with 1 and names the first event with a fault.

    Exits with 3 if all events are valid, but others are missing and nobody has accepted that: see
    portal audit accept.
    """
    from portal.services.audit import verification

    with base.as_it_is():
        found = base.in_transaction(lambda session: verification.verify(session, OPERATOR))
    if found.earlier:
        click.echo(f"{found.earlier} events are from before the chain.")
    click.echo(f"{found.holds} events verified.")
    for note in found.notes:
        click.echo(note)
    if found.fault:
        click.echo(found.fault, err=True)
        sys.exit(1)
    if found.unaccepted:
        sys.exit(3)


@audit.command("accept")
@click.option("--event", type=int, required=True, help="The number of the event with the finding.")
def accept_missing(event: int) -> None:
    """Accept that events are missing where an older database was found. This is audited as well."""
    from portal.services.audit import verification

    with base.as_it_is():
        base.in_transaction(lambda session: verification.accept_gap(session, OPERATOR, event))
    click.echo(f"Accepted: the finding of event {event} is known.")
