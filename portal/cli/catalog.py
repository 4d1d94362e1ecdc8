"""Export and import of servers: `portal catalog`."""

from typing import Any

import click

from portal.cli import base
from portal.domain.principals import OPERATOR

FORMATS = ["catalog.yaml", "mcp.json", "server.json"]


class Format(click.Choice[str]):
    """One of `FORMATS`, or the name that an earlier version used."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from portal.services.catalog.exports import OLD_NAMES

        return super().convert(OLD_NAMES.get(value, value), param, ctx)


@click.group()
def catalog() -> None:
    """Export and import servers as a document, for Git."""


@catalog.command("export")
@click.option(
    "--format",
    "file_name",
    type=Format(FORMATS),
    default="catalog.yaml",
    show_default=True,
)
def export_servers(file_name: str) -> None:
    """Write the servers to standard output: addresses, arguments, and the names of secrets."""
    from portal.services.catalog import exports

    def export(session: Any) -> str:
        text = exports.export_catalog(session, OPERATOR, file_name)
        exports.record_export(session, OPERATOR, file_name)
        return text

    click.echo(base.in_transaction(export), nl=False)


@catalog.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--update", is_flag=True, help="Also change servers that differ.")
@click.option(
    "--keep-credentials/--forget-credentials",
    "keep",
    default=None,
    help=("If a change would send stored secrets to another host: send them, or delete them."),
)
def import_servers(file: Any, update: bool, keep: bool | None) -> None:
    """Add the servers of FILE (`-` is standard input): all of them, or none if one is invalid.

    A change that would send stored secrets to another host is invalid, unless an option decides
    about them.
    """
    from portal.services.catalog import imports

    def bring_in(session: Any) -> Any:
        found = imports.import_text(session, OPERATOR, file.read(), update=update, keep=keep)
        if found.errors:
            faults = "\n".join(f"{name}, line {line}: {why}" for name, line, why in found.errors)
            raise click.ClickException(f"{faults}\nNothing was imported.")
        return found

    outcome = base.in_transaction(bring_in)
    for name, _ in outcome.imported:
        click.echo(f"imported {name}")
    for name, why in outcome.skipped:
        click.echo(f"skipped {name}: {why}")


catalogue = click.Group(
    "catalogue", catalog.commands, hidden=True, help="The former name of `portal catalog`."
)
