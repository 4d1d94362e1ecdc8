"""API keys: `portal keys issue | list | revoke`; the rest of `portal keys` is in `ring.py`."""

from typing import Any

import click

from portal.cli import base, ring
from portal.domain.principals import OPERATOR


@click.group()
def keys() -> None:
    """API keys, and the keys that encrypt stored secrets."""


keys.add_command(ring.status)
keys.add_command(ring.rotate)


@keys.command("wake")
def wake() -> None:
    """Reactivate API keys and sign-in after a restore with unknown revocations."""
    from portal.services.operations import revocations

    woken = base.in_transaction(lambda session: revocations.wake(session, OPERATOR))
    click.echo(
        "API keys work again, and all users can sign in." if woken else "Nothing is dormant."
    )


@keys.command("issue")
@click.option("--user", "user_id", default=None, help="ID of the user who owns the key.")
@click.option("--team", "team_id", default=None, help="ID of the team that the key belongs to.")
@click.option("--alias", default=None, help="Name of the key.")
def issue(user_id: str | None, team_id: str | None, alias: str | None) -> None:
    """Create an API key. It is shown only once."""
    from portal.services.access.keys import KeyDraft, issue_key

    draft = KeyDraft(key_alias=alias, user_id=user_id, team_id=team_id)
    issued = base.in_transaction(lambda session: issue_key(session, OPERATOR, draft))
    click.echo(f"Key ID {issued.view.key_id}, for `portal keys revoke`:", err=True)
    click.echo(issued.key)


@keys.command("list")
def list_all() -> None:
    """List API keys by id, prefix and name."""
    from portal.services.access.keys import list_keys

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

    base.in_transaction(show)


@keys.command("revoke")
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Revoke an API key."""
    from portal.services.access.keys import revoke_key

    base.in_transaction(lambda session: revoke_key(session, OPERATOR, key_id))
    click.echo("The key is revoked.")
