"""Startup: the first Admin, the first key, and the servers of the config file."""

import hashlib
import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal import environment
from portal.authorization import Action
from portal.domain.errors import Conflict, PortalError
from portal.domain.principals import Principal, Role
from portal.domain.servers import AuthType, OAuthGrantType, ServerFields, Transport, normalized_name
from portal.services import audit, instance_settings
from portal.services.access import users
from portal.services.access.keys import KeyDraft, issue_key
from portal.services.secrets import user_values
from portal.services.servers import config_refusals, crud, destinations, secret_moves
from portal.services.servers.changes import check_result, with_conflicts_named
from portal.services.servers.config_refusals import RefusedEntry
from portal.services.servers.destinations import Said
from portal.store.models import Server, User, now

log = logging.getLogger("portal.starting")


@dataclass(frozen=True)
class FirstAdmin:
    """The new first Admin; `password` is None if the operator set it."""

    email: str
    password: str | None = field(repr=False)


def make_first_admin(
    session: Session, principal: Principal, *, email: str, password: str | None, api_key: str | None
) -> FirstAdmin | None:
    """Create the first Admin, with a key if `api_key` is given; None if any user exists."""
    authz.require(principal, Action.USER_MANAGE)
    if session.scalar(select(func.count()).select_from(User)):
        return None
    chosen = password or secrets.token_urlsafe(15)
    admin = users.create_user(
        session,
        principal,
        {
            "email": email,
            "display_name": "Admin",
            "role": Role.ADMIN.value,
            "password": chosen,
            "must_change_password": password is None,
        },
    )
    if api_key:
        issue_key(
            session,
            principal,
            KeyDraft(key_alias="bootstrap", user_id=admin.user_id),
            secret=api_key,
        )
    return FirstAdmin(email, None if password else chosen)


def apply_config(session: Session, principal: Principal, config: Mapping[str, Any]) -> list[str]:
    """Load `mcp_servers:` and `general_settings:` of the config file into the database.

    Config servers are rows marked as such, and cannot be changed in the portal. One that is no
    longer declared is deleted with its data. Returns a line for each refused entry;
    `refused_entries` lists them until a start accepts them.
    """
    authz.require(principal, Action.SERVER_CREATE)
    declared = config.get("mcp_servers") or {}
    refused: list[RefusedEntry] = []
    wanted: dict[str, str] = {}
    if isinstance(declared, Mapping):
        for name, entry in declared.items():
            entry = entry if isinstance(entry, Mapping) else {}
            try:
                with session.begin_nested():
                    _put_config_server(session, principal, str(name), entry, wanted)
            except (PortalError, ValueError, TypeError, AttributeError, LookupError) as error:
                refused.append(_refused(session, principal, str(name), entry, error, wanted))
        _remove_others(session, principal, wanted)
    else:
        refused.append(
            RefusedEntry("", "mcp_servers must be a mapping of names to entries.", now())
        )
    config_refusals.keep_refusals(session, refused)
    settings = config.get("general_settings") or {}
    known = {
        k: v for k, v in settings.items() if k in instance_settings.Preferences.__dataclass_fields__
    }
    if known:
        instance_settings.update_preferences(session, principal, known)
    session.flush()
    return [f"{'.'.join(filter(None, ('mcp_servers', one.entry)))}: {one.why}" for one in refused]


def refused_entries(session: Session, principal: Principal) -> tuple[RefusedEntry, ...]:
    """Return the config file entries that the last start refused; their servers stay unchanged."""
    authz.require(principal, Action.PREFERENCE_READ)
    return config_refusals.kept(session)


def _refused(
    session: Session,
    principal: Principal,
    name: str,
    entry: Mapping[str, Any],
    error: Exception,
    wanted: dict[str, str],
) -> RefusedEntry:
    """Audit a refused entry. A server that it created at an earlier start stays unchanged."""
    ids = [str(known) for known in (wanted.pop(name, None), entry.get("server_id")) if known]
    alike = (Server.server_id.in_(ids), Server.server_name == name.strip().replace(" ", "_"))
    before = session.scalar(
        select(Server.server_id).where(Server.origin == "config", or_(*alike)).limit(1)
    )
    wanted |= {name: before} if before else {}
    extra: Any = error.extra if isinstance(error, Conflict) else {}
    because = error.code if isinstance(error, PortalError) else type(error).__name__
    audit.record(
        session,
        principal,
        "config server refused",
        "server",
        before,
        outcome=audit.Outcome.REFUSED,
        name=name,
        because=because,
        **extra,
    )
    return RefusedEntry(
        name, str(error), now(), before, secret_moves.read_moves(extra.get("secrets", ()))
    )


def _remove_others(session: Session, principal: Principal, wanted: Mapping[str, str]) -> None:
    gone = select(Server).where(Server.origin == "config", Server.server_id.not_in(wanted.values()))
    for row in session.scalars(gone):
        session.delete(row)
        audit.record(
            session,
            principal,
            "config server removed",
            "server",
            row.server_id,
            name=row.server_name,
        )


def config_server_id(name: str, entry: Mapping[str, Any]) -> str:
    """Return the stable id of a config server: 32 hex digits of a SHA-256, as in LiteLLM."""
    parts = (
        name,
        entry.get("url"),
        entry.get("transport") or "sse",
        entry.get("auth_type"),
        entry.get("alias"),
    )
    return hashlib.sha256("|".join(str(part or "") for part in parts).encode()).hexdigest()[:32]


def _put_config_server(
    session: Session,
    principal: Principal,
    name: str,
    entry: Mapping[str, Any],
    wanted: dict[str, str],
) -> None:
    """Add or change a server of the config file.

    Its id is added to `wanted` first, by the entry's name, so that a refused entry leaves its
    server unchanged. An entry that would send what users stored, or the portal registered, to
    another host is refused unless it sets `keep_credentials`.
    """
    server_id = str(entry.get("server_id") or config_server_id(name, entry))
    fields = _fields(name, entry)
    keep = entry.get("keep_credentials")
    if keep is not None and not isinstance(keep, bool):
        raise ValueError("keep_credentials must be true or false.")
    row = session.get(Server, server_id) or _moved_entry(
        session, principal, str(fields["server_name"])
    )
    if row is None:
        crud.create_server(session, principal, {**fields, "server_id": server_id})
        row = session.get(Server, server_id)
        wanted[name] = server_id
    elif row.origin == "config":
        wanted[name] = row.server_id
        said = Said(keep)
        check_result(session, row, fields)
        secret_moves.record_moves(
            session, principal, row, with_conflicts_named(session, row, fields, said)
        )
    else:
        raise ValueError("a server with this id already exists in the database")
    assert row is not None
    row.origin = "config"
    info = entry.get("mcp_info")
    row.is_public = bool(isinstance(info, Mapping) and info.get("is_public"))
    session.flush()


def _moved_entry(session: Session, principal: Principal, name: str) -> Server | None:
    """Return the server that an entry created under another id, for example with another URL.

    It is kept if it has data that is not from the file; otherwise it is deleted, to be created
    again.
    """
    alike = select(Server).where(
        Server.origin == "config", Server.server_name == normalized_name(name, "server_name")
    )
    row = session.scalar(alike)
    if row is None or any(user_values.holders(session, row).values()):
        return row
    if destinations.has_registered_client(session, row):
        return row
    session.delete(row)
    audit.record(
        session, principal, "config server removed", "server", row.server_id, name=row.server_name
    )
    session.flush()
    return None


def _fields(name: str, entry: Mapping[str, Any]) -> ServerFields:
    plain = {key: _resolved(entry[key]) for key in ServerFields.__annotations__ if key in entry}
    fields: dict[str, Any] = {**plain, "server_name": name}
    fields["alias"] = entry.get("alias") or name
    fields["transport"] = Transport(str(entry.get("transport") or "sse"))
    if entry.get("auth_type"):
        fields["auth_type"] = AuthType(str(entry["auth_type"]))
    if entry.get("oauth2_flow"):
        fields["oauth2_flow"] = OAuthGrantType(str(entry["oauth2_flow"]))
    value = entry.get("auth_value") or entry.get("authentication_token")
    credentials = {
        k: _resolved(entry[k]) for k in ("client_id", "client_secret", "scopes") if k in entry
    }
    if value or credentials:
        fields["credentials"] = {
            **credentials,
            **({"auth_value": _resolved(value)} if value else {}),
        }
    if "access_groups" in entry and "mcp_access_groups" not in fields:
        fields["mcp_access_groups"] = list(entry["access_groups"])
    fields["mcp_access_groups"] = fields.get("mcp_access_groups") or []
    info = fields.get("mcp_info")
    if "description" not in fields and isinstance(info, Mapping) and info.get("description"):
        fields["description"] = str(info["description"])
    if isinstance(fields.get("env_vars"), list):
        fields["env_vars"] = list(_entries(fields["env_vars"]))
    for unwanted in ("version", "keep_credentials", "server_id"):
        fields.pop(unwanted, None)
    return cast(ServerFields, fields)


def _entries(entries: Iterable[Any]) -> Iterable[dict[str, Any]]:
    """Yield valid entries, skipping those that are not objects or have no name."""
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get("name"):
            yield {**entry, "name": str(entry["name"])}


def _resolved(value: Any) -> Any:
    """Replace `os.environ/NAME` with that variable, so that the file needs no secrets."""
    if isinstance(value, str) and (
        match := re.fullmatch(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)", value)
    ):
        return environment.take(match[1]) or ""
    if isinstance(value, Mapping):
        return {key: _resolved(inner) for key, inner in value.items()}
    return [_resolved(inner) for inner in value] if isinstance(value, list) else value
