"""Commands for operators, one file per subject; shared code is in `base.py`."""

import gc

import click

# Before the imports: what they create stays, and with the default threshold of 700 it is scanned
# so often that a process takes a sixth longer to start.
gc.set_threshold(50_000, 20, 100)

from portal.cli import audit, backup, catalog, db, doctor, keys, serve, users  # noqa: E402


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mcp-portal", prog_name="portal")
def main() -> None:
    """MCP Portal: the MCP servers of your organization."""


for _command in (
    serve.serve,
    serve.worker,
    serve.gateway,
    db.db,
    users.users,
    keys.keys,
    catalog.catalog,
    catalog.catalogue,
    audit.audit,
    backup.backup,
    backup.restore,
    doctor.doctor,
    serve.demo,
):
    main.add_command(_command)
