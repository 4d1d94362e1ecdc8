"""The servers as a document: `portal catalog`."""

from typing import Any

import click

from portal.cli import base
from portal.domain.principals import OPERATOR

FORMATS = ["catalog.yaml", "mcp.json", "server.json"]


class Format(click.Choice[str]):
    """One of `FORMATS`; the name of an earlier version is understood, too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from portal.services.catalog.exports import OLD_NAMES

        return super().convert(OLD_NAMES.get(value, value), param, ctx)


@click.group()
def catalog() -> None:
    """The servers as a document, for Git."""


@catalog.command("export")
@click.option(
    "--format",
    "file_name",
    type=Format(FORMATS),
    default="catalog.yaml",
    show_default=True,
)
def export_servers(file_name: str) -> None:
    """Write the servers to standard output: their addresses and arguments, and the names of what is
    secret."""
    from portal.services.catalog import exports

    def export(session: Any) -> str:
        text = exports.export_catalog(session, OPERATOR, file_name)
        exports.record_export(session, OPERATOR, file_name)
        return text

    click.echo(base.in_transaction(export), nl=False)


@catalog.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--update", is_flag=True, help="Change servers that differ, too.")
@click.option(
    "--keep-credentials/--forget-credentials",
    "keep",
    default=None,
    help=(
        "Where a change would send stored secrets to another host: let them go along, or forget"
        " them."
    ),
)
def import_servers(file: Any, update: bool, keep: bool | None) -> None:
    """Add the servers of FILE (`-` is standard input); all of them, or none where one is wrong.

    A change that would send stored secrets to another host is wrong, unless an option says what
    becomes of them.
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
    "catalogue", catalog.commands, hidden=True, help="What `portal catalog` was called before."
)
