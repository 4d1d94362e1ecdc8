"""Checks of the whole installation: `portal doctor`."""

import sys
from collections.abc import Iterator

import click

from portal import environment
from portal.cli import base
from portal.cli.checks import api_keys, commands, database, files, journal, keys, network
from portal.cli.checks.findings import Check, Finding, Level, Surroundings, bad, ok
from portal.processes.embedded import prepare_environment
from portal.settings import BadSettings, read_settings

ON_THE_HOST: tuple[Check, ...] = (
    files.config,
    commands.sandboxed,
    network.redis_answers,
    network.public_url,
)
OF_THE_DATABASE: tuple[Check, ...] = (database.whole, database.has_room, files.rights)
OF_WHAT_IT_HOLDS: tuple[Check, ...] = (
    database.clock,
    keys.opens,
    journal.is_whole,
    files.entries,
    api_keys.in_order,
    network.proxies,
)


@click.command()
def doctor() -> None:
    """Check settings, database, keys, files and network, and print remedies.

    Exits with 1 if any is BAD.
    """
    given = environment.given()
    prepare_environment(given)
    try:
        settings = read_settings(given)
    except BadSettings as error:
        for line in str(error).splitlines():
            click.echo(bad("settings", line, "Set it as described in docs/configuration.md"))
        sys.exit(1)
    levels = set()
    for finding in examine(Surroundings(settings, base.opened(settings))):
        click.echo(finding)
        levels.add(finding.level)
    click.echo("\n".join(f"     {fact}" for fact in settings.sign_in_facts))
    sys.exit(1 if Level.BAD in levels else 0)


def examine(around: Surroundings) -> Iterator[Finding]:
    """Run every check whose requirements are met."""
    yield ok("settings", "all are valid")
    for check in ON_THE_HOST:
        yield from check(around)
    found = list(database.answers(around))
    yield from found
    if any(finding.level is Level.BAD for finding in found):
        return
    for check in OF_THE_DATABASE:
        yield from check(around)
    schema = list(database.at_head(around))
    yield from schema
    if all(finding.level is Level.OK for finding in schema):
        for check in OF_WHAT_IT_HOLDS:
            yield from check(around)
