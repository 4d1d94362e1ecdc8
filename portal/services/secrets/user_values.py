"""What people stored for a server: their keys and values, sealed for them, that server and the host
it points to."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.store.models import Server, UserCredential, UserVariable


def opened_values(session: Session, row: Server, user_id: str | None) -> dict[str, str]:
    """A person's values for a server in the clear, to be sent upstream. One that cannot be read is
    absent."""
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
    """A person's own key for a server in the clear, to be sent upstream."""
    credential = session.get(UserCredential, (user_id, row.server_id, "byok")) if user_id else None
    if credential is None or user_id is None:
        return None
    return runtime_of(session).vault.open(
        credential.sealed, bindings.of_user_credential(row, user_id, "byok")
    )


_KIND = {"people.keys": "byok", "people.connections": "oauth2"}


def holders(session: Session, row: Server) -> dict[str, set[str]]:
    """Who stored what for a server: the ids of people by `people.values`, `people.keys` and
    `people.connections`."""
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


def forget(session: Session, row: Server, secret: str) -> None:
    """Delete what everybody stored of one kind: `people.values`, `people.keys` or
    `people.connections`."""
    if secret not in _KIND:
        session.execute(delete(UserVariable).where(UserVariable.server_id == row.server_id))
    else:
        held = (UserCredential.server_id == row.server_id, UserCredential.kind == _KIND[secret])
        session.execute(delete(UserCredential).where(*held))


def reseal_all(session: Session, row: Server, old_destination: str) -> None:
    """Seal what people stored for the host that the server points to now; the Admin said it may go
    along."""
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
