"""What people stored for a server: their keys and values, sealed for them, that server and the host it points to."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from portal.services.inner import places
from portal.services.inner.house import house_of
from portal.store.models import Server, UserCredential, UserVariable


def opened_values(session: Session, row: Server, user_id: str | None) -> dict[str, str]:
    """A person's values for a server in the clear, to be sent upstream. One that cannot be read is absent."""
    if user_id is None:
        return {}
    vault = house_of(session).vault
    stored = session.scalars(
        select(UserVariable).where(UserVariable.user_id == user_id, UserVariable.server_id == row.server_id)
    )
    values = {v.name: vault.open(v.sealed, places.of_user_variable(row, user_id, v.name)) for v in stored}
    return {name: value for name, value in values.items() if value}


def opened_key(session: Session, row: Server, user_id: str | None) -> str | None:
    """A person's own key for a server in the clear, to be sent upstream."""
    credential = session.get(UserCredential, (user_id, row.server_id, "byok")) if user_id else None
    if credential is None or user_id is None:
        return None
    return house_of(session).vault.open(credential.sealed, places.of_user_credential(row, user_id, "byok"))


def forget_all(session: Session, row: Server) -> int:
    """Delete what everybody stored for a server; answers how many people that were."""
    variables = select(UserVariable.user_id).where(UserVariable.server_id == row.server_id)
    credentials = select(UserCredential.user_id).where(UserCredential.server_id == row.server_id)
    people = set(session.scalars(variables)) | set(session.scalars(credentials))
    session.execute(delete(UserVariable).where(UserVariable.server_id == row.server_id))
    session.execute(delete(UserCredential).where(UserCredential.server_id == row.server_id))
    return len(people)


def reseal_all(session: Session, row: Server, old_destination: str) -> None:
    """Seal what people stored for the host that the server points to now; the Admin said it may go along."""
    vault = house_of(session).vault
    for value in session.scalars(select(UserVariable).where(UserVariable.server_id == row.server_id)):
        text = vault.open(value.sealed, places.of_user_variable(row, value.user_id, value.name, old_destination))
        if text is not None:
            value.sealed = vault.seal(text, places.of_user_variable(row, value.user_id, value.name))
    for held in session.scalars(select(UserCredential).where(UserCredential.server_id == row.server_id)):
        text = vault.open(held.sealed, places.of_user_credential(row, held.user_id, held.kind, old_destination))
        if text is not None:
            held.sealed = vault.seal(text, places.of_user_credential(row, held.user_id, held.kind))
