"""Users' keys and values for a server, sealed for the user, the server and its host."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.store.models import Server, UserCredential, UserVariable


def opened_values(session: Session, row: Server, user_id: str | None) -> dict[str, str]:
    """Return a user's unsealed values for a server, without unreadable ones, to send upstream."""
    if user_id is None:
        return {}
    vault = runtime_of(session).vault
    stored = session.scalars(
        select(UserVariable).where(
            UserVariable.user_id == user_id, UserVariable.server_id == row.server_id
        )
    )
    values = {
        v.name: vault.open(v.sealed, bindings.of_user_variable(row, user_id, v.name))
        for v in stored
    }
    return {name: value for name, value in values.items() if value}


def opened_key(session: Session, row: Server, user_id: str | None) -> str | None:
    """Return a user's unsealed key for a server, to send upstream."""
    credential = session.get(UserCredential, (user_id, row.server_id, "byok")) if user_id else None
    if credential is None or user_id is None:
        return None
    return runtime_of(session).vault.open(
        credential.sealed, bindings.of_user_credential(row, user_id, "byok")
    )


_KIND = {"people.keys": "byok", "people.connections": "oauth2"}


def holders(session: Session, row: Server) -> dict[str, set[str]]:
    """Return the ids of users by what they stored for a server.

    The kinds are `people.values`, `people.keys` and `people.connections`.
    """
    found: dict[str, set[str]] = {
        "people.values": set(),
        "people.keys": set(),
        "people.connections": set(),
    }
    of_server = UserVariable.server_id == row.server_id
    found["people.values"] = set(session.scalars(select(UserVariable.user_id).where(of_server)))
    held = select(UserCredential.user_id, UserCredential.kind).where(
        UserCredential.server_id == row.server_id
    )
    for user_id, kind in session.execute(held).all():
        found["people.keys" if kind == "byok" else "people.connections"].add(user_id)
    return found


def delete_values(session: Session, row: Server, secret: str) -> None:
    """Delete what all users stored of one kind; see `holders`."""
    if secret not in _KIND:
        session.execute(delete(UserVariable).where(UserVariable.server_id == row.server_id))
    else:
        held = (UserCredential.server_id == row.server_id, UserCredential.kind == _KIND[secret])
        session.execute(delete(UserCredential).where(*held))


def reseal_all(session: Session, row: Server, old_destination: str) -> None:
    """Seal what users stored for the server's new host, after an Admin allowed it."""
    vault = runtime_of(session).vault
    for value in session.scalars(
        select(UserVariable).where(UserVariable.server_id == row.server_id)
    ):
        text = vault.open(
            value.sealed, bindings.of_user_variable(row, value.user_id, value.name, old_destination)
        )
        if text is not None:
            value.sealed = vault.seal(
                text, bindings.of_user_variable(row, value.user_id, value.name)
            )
    for held in session.scalars(
        select(UserCredential).where(UserCredential.server_id == row.server_id)
    ):
        text = vault.open(
            held.sealed, bindings.of_user_credential(row, held.user_id, held.kind, old_destination)
        )
        if text is not None:
            held.sealed = vault.seal(
                text, bindings.of_user_credential(row, held.user_id, held.kind)
            )
