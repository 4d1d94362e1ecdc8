"""People: `portal users`."""

from typing import Any

import click

from portal.cli import base
from portal.domain.principals import OPERATOR, Role


@click.group()
def users() -> None:
    """People."""


@users.command("add")
@click.argument("email")
@click.option("--name", default="", help="Display name.")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.MEMBER.value,
    show_default=True,
)
@click.password_option(help="Asked for where it is not given.")
def add_user(email: str, name: str, role: str, password: str) -> None:
    """Add a person."""
    from portal.services.access import users as people

    fields = {
        "email": email,
        "display_name": name,
        "role": role,
        "password": password,
        "must_change_password": True,
    }
    click.echo(
        base.in_transaction(lambda session: people.create_user(session, OPERATOR, fields)).user_id
    )


@users.command("password")
@click.argument("email")
@click.password_option(help="Asked for where it is not given.")
def set_password(email: str, password: str) -> None:
    """Set somebody's password, for the next sign-in only."""
    _change(email, {"password": password, "must_change_password": True})
    click.echo("The password is set. It has to be changed at the next sign-in.")


@users.command("deactivate")
@click.argument("email")
def deactivate_user(email: str) -> None:
    """Let somebody in no more, neither by password nor by API key."""
    _change(email, {"is_active": False})
    click.echo("They are deactivated. An Admin can undo it on their page.")


def _change(email: str, fields: dict[str, Any]) -> None:
    from portal.services.access import users as people
    from portal.services.access.by_email import find_by_email

    def change(session: Any) -> None:
        found = find_by_email(session, email)
        if found is None:
            raise click.ClickException(f"There is nobody with the e-mail {email}.")
        people.change_user(session, OPERATOR, found.user_id, fields)

    base.in_transaction(change)
