"""Commands for operators: `portal serve | worker | db | users | keys | catalogue | audit | doctor | demo`."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from portal.domain.errors import Forbidden, PortalError
from portal.domain.principals import OPERATOR, Role
from portal.embedded import prepare_environment
from portal.settings import BadSettings, Settings, read_settings
from portal.store import schema
from portal.store.database import Database


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """MCP Portal: the MCP servers of your organization."""


def load(**overrides: Any) -> Settings:
    """The settings of this process, or an end with a line for each that is wrong."""
    prepare_environment(os.environ)
    try:
        return read_settings(os.environ, **overrides)
    except BadSettings as error:
        for line in str(error).splitlines():
            click.echo(f"Setting {line}", err=True)
        sys.exit(2)


def connect(settings: Settings) -> Database:
    """The database, upgraded where it is SQLite, refused where it is not at head."""
    from portal.app import open_database

    if settings.embedded:
        os.umask(0o077)  # the database file holds password hashes and ciphertext: its owner's business alone
    database = open_database(settings)
    if settings.embedded:
        schema.upgrade(database.engine)
    elif not database.answers():
        sys.exit("The database does not answer. Check PORTAL_DATABASE_URL.")
    elif not schema.is_at_head(database.engine):
        sys.exit("The database is not at head. Run: portal db upgrade")
    return database


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Web processes.")
def serve(host: str, port: int, workers: int) -> None:
    """Serve the portal; in embedded mode a worker runs beside it."""
    from portal import serving

    if "PORTAL_PUBLIC_URL" not in os.environ:
        shown = "127.0.0.1" if host in ("0.0.0.0", "::", "127.0.0.1") else host  # noqa: S104 - compared, not bound
        os.environ["PORTAL_PUBLIC_URL"] = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
    settings = load()
    database = connect(settings)
    serving.begin(settings, database, announce=click.echo)
    serving.serve(settings, host=host, port=port, workers=workers)


@main.command()
@click.option("--once", is_flag=True, help="Do what is due now, then end.")
@click.option("--parent", type=int, default=None, help="End when this process is no longer the parent.")
def worker(once: bool, parent: int | None) -> None:
    """Probe servers and tidy up, in the background; any number may run."""
    from portal import serving

    settings = load()
    serving.work(settings, connect(settings), once=once, parent=parent)


@main.group()
def db() -> None:
    """The database's schema."""


@db.command()
@click.argument("revision", default="head")
def upgrade(revision: str) -> None:
    """Bring the schema up to REVISION (head)."""
    from portal.app import open_database

    schema.upgrade(open_database(load()).engine, revision)
    click.echo(f"The database is at {revision}.")


@db.command()
@click.argument("revision")
def downgrade(revision: str) -> None:
    """Bring the schema down to REVISION (`base` removes everything)."""
    from portal.app import open_database

    schema.downgrade(open_database(load()).engine, revision)
    click.echo(f"The database is at {revision}.")


@main.group()
def users() -> None:
    """People."""


@users.command("add")
@click.argument("email")
@click.option("--name", default="", help="Display name.")
@click.option("--role", type=click.Choice([role.value for role in Role]), default=Role.MEMBER.value, show_default=True)
@click.password_option(help="Asked for where it is not given.")
def add_user(email: str, name: str, role: str, password: str) -> None:
    """Add a person."""
    from portal.services import people

    fields = {"email": email, "display_name": name, "role": role, "password": password, "must_change_password": True}
    click.echo(_in_transaction(lambda session: people.create_user(session, OPERATOR, fields)).user_id)


@users.command("password")
@click.argument("email")
@click.password_option(help="Asked for where it is not given.")
def set_password(email: str, password: str) -> None:
    """Set somebody's password, for the next sign-in only."""
    from portal.services import people

    def change(session: Any) -> None:
        found = [u for u in people.list_users(session, OPERATOR, q=email, limit=200).items if u.email == email.lower()]
        if not found:
            raise click.ClickException(f"There is nobody with the e-mail {email}.")
        fields = {"password": password, "must_change_password": True}
        people.change_user(session, OPERATOR, found[0].user_id, fields)

    _in_transaction(change)
    click.echo("The password is set. It has to be changed at the next sign-in.")


@main.group()
def keys() -> None:
    """API keys."""


@keys.command("issue")
@click.option("--user", "user_id", default=None, help="Id of the person it belongs to.")
@click.option("--team", "team_id", default=None, help="Id of the team it belongs to.")
@click.option("--alias", default=None, help="What to call it.")
def issue(user_id: str | None, team_id: str | None, alias: str | None) -> None:
    """Issue an API key; it is shown this once."""
    from portal.services.keys import KeyDraft, issue_key

    draft = KeyDraft(key_alias=alias, user_id=user_id, team_id=team_id)
    issued = _in_transaction(lambda session: issue_key(session, OPERATOR, draft))
    click.echo(f"Key id {issued.view.key_id}, for `portal keys revoke`:", err=True)
    click.echo(issued.key)


@keys.command("list")
def list_all() -> None:
    """List API keys by id, beginning and name."""
    from portal.services.keys import list_keys

    def show(session: Any) -> None:
        cursor = ""
        while True:
            page = list_keys(session, OPERATOR, cursor=cursor, limit=200)
            for key in page.items:
                state = "revoked" if key.revoked_at else "live"
                click.echo(f"{key.key_id}  {key.key_prefix}…  {state:8}{key.key_alias or ''}")
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    _in_transaction(show)


@keys.command("revoke")
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Revoke an API key."""
    from portal.services.keys import revoke_key

    _in_transaction(lambda session: revoke_key(session, OPERATOR, key_id))
    click.echo("The key is revoked.")


@main.group()
def catalogue() -> None:
    """The servers as a document, for Git."""


@catalogue.command("export")
@click.option(
    "--format", "file_name", type=click.Choice(["catalogue.yaml", "mcp.json", "server.json"]),
    default="catalogue.yaml", show_default=True,
)  # fmt: skip
def export_servers(file_name: str) -> None:
    """Write the servers, without secrets, to standard output."""
    from portal.services import exporting

    def export(session: Any) -> str:
        text = exporting.export_catalogue(session, OPERATOR, file_name)
        exporting.record_export(session, OPERATOR, file_name)
        return text

    click.echo(_in_transaction(export), nl=False)


@catalogue.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--update", is_flag=True, help="Change servers that differ, too.")
def import_servers(file: Any, update: bool) -> None:
    """Add the servers of FILE (`-` is standard input); all of them, or none where one is wrong."""
    from portal.services import exchange

    def bring_in(session: Any) -> Any:
        found = exchange.import_text(session, OPERATOR, file.read(), update=update)
        if found.errors:
            faults = "\n".join(f"{name}, line {line}: {why}" for name, line, why in found.errors)
            raise click.ClickException(f"{faults}\nNothing was imported.")
        return found

    outcome = _in_transaction(bring_in)
    for name, _ in outcome.imported:
        click.echo(f"imported {name}")
    for name, why in outcome.skipped:
        click.echo(f"skipped {name}: {why}")


@main.group()
def audit() -> None:
    """The record of what was done and refused."""


@audit.command("verify")
def verify_audit() -> None:
    """Walk along the chain of events; ends with 1 and names the first event that does not hold."""
    from portal.services import trail

    found = _in_transaction(lambda session: trail.verify(session, OPERATOR))
    if found.earlier:
        click.echo(f"{found.earlier} events are older than the chain.")
    click.echo(f"{found.holds} events hold.")
    if found.fault:
        click.echo(found.fault, err=True)
        sys.exit(1)


@main.command()
def doctor() -> None:
    """Check settings, database and file rights, and say what to do."""
    from portal.app import open_database

    settings = load()
    database = open_database(settings)
    checks = [("settings", True, "read"), ("database", database.answers(), "answers")]
    checks.append(("migrations", database.answers() and schema.is_at_head(database.engine), "at head"))
    if settings.config:
        checks.append(("config file", Path(settings.config).is_file(), str(settings.config)))
    lines = [f"{'ok ' if good else 'BAD'} {name}: {note if good else 'not ' + note}" for name, good, note in checks]
    click.echo("\n".join([*lines, *(f"    {fact}" for fact in settings.sign_in_facts)]))
    sys.exit(0 if all(good for _, good, _ in checks) else 1)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
def demo(host: str, port: int) -> None:
    """Serve the portal with a sample catalogue, people of each role, and a real MCP server to talk to."""
    from portal import sample, serving

    os.environ.setdefault("PORTAL_PUBLIC_URL", f"http://{host}:{port}")
    settings = load()
    database = connect(settings)
    serving.begin(settings, database, announce=click.echo)
    with sample.running_server() as url:
        sample.fill(database, url, announce=click.echo)
        serving.serve(settings, host=host, port=port, workers=2)


def _in_transaction(work: Any) -> Any:
    from portal.services.audit import Outcome, record

    with connect(load()).session(writes=True) as session:
        try:
            result = work(session)
        except Forbidden as error:
            session.rollback()
            command = click.get_current_context().command_path
            record(session, OPERATOR, command[:64], "route", None, outcome=Outcome.REFUSED, because=error.message)
            session.commit()
            raise click.ClickException(error.message) from None
        except PortalError as error:
            raise click.ClickException(error.message) from None
        session.commit()
        return result


if __name__ == "__main__":
    main()
