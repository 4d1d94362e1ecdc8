"""Users: `portal users`."""

from typing import Any

import click

from portal.cli import base
from portal.domain.principals import OPERATOR, Role


@click.group()
def users() -> None:
    """Users."""


@users.command("add")
@click.argument("email")
@click.option("--name", default="", help="Display name.")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.MEMBER.value,
    show_default=True,
)
@click.password_option(help="Prompted for if omitted.")
def add_user(email: str, name: str, role: str, password: str) -> None:
    """Add a user."""
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
@click.password_option(help="Prompted for if omitted.")
def set_password(email: str, password: str) -> None:
    """Set a user's password, which they must change at the next sign-in."""
    _change(email, {"password": password, "must_change_password": True})
    click.echo("The password is set. The user must change it at the next sign-in.")


@users.command("deactivate")
@click.argument("email")
def deactivate_user(email: str) -> None:
    """Deactivate a user, who can then no longer use passwords or API keys."""
    _change(email, {"is_active": False})
    click.echo("The user is deactivated. An Admin can reactivate them on their page.")


def _change(email: str, fields: dict[str, Any]) -> None:
    from portal.services.access import users as people
    from portal.services.access.by_email import find_by_email

    def change(session: Any) -> None:
        found = find_by_email(session, email)
        if found is None:
            raise click.ClickException(f"No user has the email {email}.")
        people.change_user(session, OPERATOR, found.user_id, fields)

    base.in_transaction(change)
