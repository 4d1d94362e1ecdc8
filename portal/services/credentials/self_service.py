"""A user's own values and keys for servers: written and counted, never shown."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.credentials import setup_url
from portal.domain.errors import InvalidRequest
from portal.domain.principals import Principal
from portal.domain.servers import check_sendable
from portal.domain.variables import Scope
from portal.services import audit
from portal.services.credentials.states import KeyState, Requirement, key_state_of, requirement_of
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.services.secrets.token_store import KIND
from portal.services.servers import own_data, queries
from portal.store.database import read
from portal.store.models import Server, User, UserCredential, UserVariable, now

MAX_VALUE = 8_192


@dataclass(frozen=True)
class Holding:
    """What the caller stored for a server: a count of values, a key, a connection."""

    server_id: str
    server_name: str
    values: int = 0
    has_key: bool = False
    is_connected: bool = False


def get_requirement(session: Session, principal: Principal, server_id: str) -> Requirement:
    """Return what a server needs from the caller.

    Raises `InvalidRequest` for a key without an owner.
    """
    row = own_data.find_place(session, principal, server_id, Action.SERVER_READ)
    return requirement_of(session, principal, row)


def list_requirements(session: Session, principal: Principal) -> list[dict[str, Any]]:
    """Return what all servers on the caller's grid need, as API objects, in one query.

    Returns an empty list for a key without an owner.
    """
    if principal.user_id is None:
        return []
    rows = read(
        session, queries.required_within(authz.horizon(principal)), user_id=principal.user_id
    ).all()
    runtime = runtime_of(session)
    found = list[dict[str, Any]]()
    for server_id, server_name, alias, name, description, sealed in rows:
        if not found or found[-1]["server_id"] != server_id:
            found.append(
                {
                    "server_id": server_id,
                    "server_name": server_name,
                    "alias": alias,
                    "required": [],
                    "missing_count": 0,
                    "setup_url": setup_url(runtime.public_url, server_id),
                }
            )
        is_set = sealed is not None and runtime.vault.knows_key_of(sealed)
        found[-1]["required"].append({"name": name, "description": description, "is_set": is_set})
        found[-1]["missing_count"] += not is_set
    return found


def requirements_of(
    session: Session, principal: Principal, server_ids: Collection[str]
) -> dict[str, Requirement]:
    """Return what these servers need from the caller, leaving out those that need nothing."""
    required = queries.required_of(session, principal, server_ids)
    names = select(Server.server_id, Server.server_name, Server.alias).where(
        authz.visible_servers(principal)
    )
    public_url = runtime_of(session).public_url
    return {
        server_id: Requirement(
            server_id, name, alias, required[server_id], setup_url(public_url, server_id)
        )
        for server_id, name, alias in read(
            session, names.where(Server.server_id.in_(list(required)))
        )
    }


def require_values_place(session: Session, principal: Principal, server_id: str) -> None:
    """Raise what `save_variables` raises before it reads the values."""
    own_data.find_place(session, principal, server_id, Action.VALUES_OWN)


def save_variables(
    session: Session, principal: Principal, server_id: str, values: Mapping[str, str | None]
) -> Requirement:
    """Merge the caller's values for a server.

    Undeclared names are ignored, empty values keep the stored ones, and stored names that are no
    longer declared are deleted. Raises `InvalidRequest` for a value that cannot be sent in a
    header.
    """
    row = own_data.find_place(session, principal, server_id, Action.VALUES_OWN)
    user_id = _lock_person(session, principal)
    declared = {variable.name for variable in row.variables if variable.scope == Scope.USER}
    given = {name: value for name, value in values.items() if name in declared and value}
    for name, value in given.items():
        check_value(value, name)
    mine = (UserVariable.user_id == user_id, UserVariable.server_id == row.server_id)
    stored = {
        variable.name: variable for variable in session.scalars(select(UserVariable).where(*mine))
    }
    vault = runtime_of(session).vault
    for name, value in given.items():
        variable = stored.get(name) or UserVariable(
            user_id=user_id, server_id=row.server_id, name=name
        )
        variable.sealed = vault.seal(value, bindings.of_user_variable(row, user_id, name))
        variable.updated_at = now()
        session.add(variable)
    for name in stored.keys() - declared:
        session.delete(stored[name])
    if given:
        audit.record(
            session,
            principal,
            "own values saved",
            "server",
            row.server_id,
            name=row.server_name,
            names=sorted(given),
        )
    session.flush()
    return requirement_of(session, principal, row)


def forget_variables(session: Session, principal: Principal, server_id: str) -> Requirement:
    """Delete all the caller's values for a server; does nothing if there are none.

    The result contains nothing about a server that the caller may no longer see.
    """
    row = own_data.find_held(session, principal, server_id, Action.VALUES_OWN)
    removed = session.execute(
        delete(UserVariable).where(
            UserVariable.user_id == principal.user_id, UserVariable.server_id == row.server_id
        )
    )
    if getattr(removed, "rowcount", 0):
        audit.record(
            session, principal, "own values removed", "server", row.server_id, name=row.server_name
        )
    session.flush()
    if not authz.may_see(principal, queries.facts(session, row)):
        return Requirement(row.server_id, None, None, (), None)
    return requirement_of(session, principal, row)


def get_key_state(session: Session, principal: Principal, server_id: str) -> KeyState:
    """Return whether the caller has stored a key for a BYOK server."""
    row = own_data.find_place(session, principal, server_id, Action.SERVER_READ)
    return key_state_of(session, principal, row)


def list_own_keys_held(session: Session, principal: Principal) -> dict[str, KeyState]:
    """Return the state of the caller's keys for BYOK servers, by server id."""
    held = session.scalars(
        select(UserCredential).where(
            UserCredential.user_id == principal.user_id, UserCredential.kind == "byok"
        )
    )
    return {row.server_id: KeyState(row.server_id, True, row.connected_at) for row in held}


def list_holdings(session: Session, principal: Principal) -> list[Holding]:
    """Return everything the caller stored, by server name.

    Servers that the caller may no longer use are listed by id, because their current name is not
    shown.
    """
    values = Counter(
        session.scalars(
            select(UserVariable.server_id).where(UserVariable.user_id == principal.user_id)
        )
    )
    mine = select(UserCredential.server_id, UserCredential.kind).where(
        UserCredential.user_id == principal.user_id
    )
    kinds = {(server_id, kind) for server_id, kind in session.execute(mine)}
    ids = values.keys() | {server_id for server_id, _ in kinds}
    there = select(Server.server_id, *queries.names_known_to(principal)).where(
        Server.server_id.in_(ids)
    )
    found = [
        Holding(i, name or alias or i, values[i], (i, "byok") in kinds, (i, KIND) in kinds)
        for i, name, alias in session.execute(there)
    ]
    return sorted(found, key=lambda holding: (holding.server_name.casefold(), holding.server_id))


def require_own_key_place(session: Session, principal: Principal, server_id: str) -> None:
    """Raise what `save_key` raises before it reads the key."""
    _require_byok(own_data.find_place(session, principal, server_id, Action.CREDENTIAL_OWN))


def save_key(
    session: Session, principal: Principal, server_id: str, key: str, *, save: bool = True
) -> KeyState:
    """Store the caller's key for a BYOK server, replacing an earlier one.

    `save=False` only checks the key. Raises `InvalidRequest` (`not_byok`) for other servers, and
    for a key that cannot be sent in a header.
    """
    row = own_data.find_place(session, principal, server_id, Action.CREDENTIAL_OWN)
    _require_byok(row)
    check_value(key, "credential")
    if not save:
        return KeyState(row.server_id, False)
    user_id = _lock_person(session, principal)
    held = session.get(UserCredential, (user_id, row.server_id, "byok"))
    held = held or UserCredential(user_id=user_id, server_id=row.server_id, kind="byok")
    held.sealed = runtime_of(session).vault.seal(
        key.strip(), bindings.of_user_credential(row, user_id, "byok")
    )
    held.connected_at = now()
    session.add(held)
    audit.record(session, principal, "own key saved", "server", row.server_id, name=row.server_name)
    session.flush()
    return KeyState(row.server_id, True, held.connected_at)


def remove_key(
    session: Session, principal: Principal, server_id: str, *, user_id: str | None = None
) -> KeyState:
    """Delete the caller's key, or as Admin that of `user_id`; does nothing if there is none."""
    if user_id is None or user_id == principal.user_id:
        row = own_data.find_held(session, principal, server_id, Action.CREDENTIAL_OWN)
    else:
        server = queries.find_server(session, principal, server_id, Action.SERVER_READ)
        authz.require(principal, Action.CREDENTIAL_REMOVE_OTHERS, server)
        row = server.row
    owner = user_id or principal.user_id
    held = session.get(UserCredential, (owner, row.server_id, "byok"))
    if held is None:
        _require_byok(row)
    else:
        session.delete(held)
        audit.record(
            session,
            principal,
            "key removed",
            "server",
            row.server_id,
            name=row.server_name,
            user_id=owner,
        )
    session.flush()
    return KeyState(row.server_id, False)


def check_value(value: str, name: str) -> None:
    """Check that a user's value fits into one header line. Raises `InvalidRequest`."""
    if not value.strip():
        raise InvalidRequest("Enter a value.", field=name)
    if len(value) > MAX_VALUE:
        raise InvalidRequest(f"Enter at most {MAX_VALUE} characters.", field=name)
    check_sendable(value, name)


def _require_byok(row: Server) -> None:
    if not row.is_byok:
        raise InvalidRequest(
            "Users do not provide their own key for this server.",
            code="not_byok",
            field="server_id",
        )


def _lock_person(session: Session, principal: Principal) -> str:
    """Lock the user, so that concurrent saves of one user run one after the other."""
    session.execute(select(User.user_id).where(User.user_id == principal.user_id).with_for_update())
    assert principal.user_id is not None
    return principal.user_id
