"""Running the portal: `portal serve | worker | gateway | demo`."""

import click

from portal import environment
from portal.cli import base, ring
from portal.settings import Settings
from portal.store.database import Database

_WITHOUT_SECRETS = click.option(
    "--without-secrets",
    is_flag=True,
    help="Start even if no stored secret can be decrypted; all count as not set.",
)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port to listen on.",
)
@click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Web processes."
)
@_WITHOUT_SECRETS
def serve(host: str, port: int, workers: int, without_secrets: bool) -> None:
    """Serve the portal; in embedded mode, also run a worker."""
    from portal.processes import web

    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "127.0.0.1") else host  # noqa: S104 - compared, not bound
    environment.set_default(
        "PORTAL_PUBLIC_URL", f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
    )
    settings = base.load()
    database = base.connect(settings)
    ring.check(database, without_secrets=without_secrets)
    _reconciled(settings, database)
    web.begin(settings, database, announce=click.echo)
    web.serve(settings, host=host, port=port, workers=workers)


@click.command()
@click.option("--once", is_flag=True, help="Do what is due now, then exit.")
@_WITHOUT_SECRETS
def worker(once: bool, without_secrets: bool) -> None:
    """Check servers and clean up in the background; any number can run."""
    from portal.processes import web

    settings = base.load()
    database = base.connect(settings)
    ring.check(database, without_secrets=without_secrets)
    _reconciled(settings, database)
    web.work(settings, database, once=once)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8001,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port to listen on.",
)
@_WITHOUT_SECRETS
def gateway(host: str, port: int, without_secrets: bool) -> None:
    """Serve MCP clients: each streamable HTTP server of the catalog at its address."""
    from portal.processes import gateway as process

    settings = base.load()
    database = base.connect(settings)
    ring.check(database, without_secrets=without_secrets)
    _reconciled(settings, database)
    process.serve(settings, database, host=host, port=port)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
def demo(host: str, port: int) -> None:
    """Serve the portal with sample data, users of each role, and a real MCP server."""
    from portal import demo as sample_data
    from portal.processes import web

    environment.set_default("PORTAL_PUBLIC_URL", f"http://{host}:{port}")
    settings = base.load()
    database = base.connect(settings)
    _reconciled(settings, database)
    web.begin(settings, database, announce=click.echo)
    with sample_data.running_server() as url:
        sample_data.fill(database, url, announce=click.echo)
        web.serve(settings, host=host, port=port, workers=2)


def _reconciled(settings: Settings, database: Database) -> None:
    """Reconcile a PostgreSQL database with its journal; `connect` has done it for SQLite."""
    if not settings.embedded:
        base.reconcile(database)
