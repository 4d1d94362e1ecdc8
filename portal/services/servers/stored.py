"""The data that a server's form starts from: names, origins and states, without opening secrets."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from portal.domain.principals import Principal
from portal.domain.servers import URL_FIELDS
from portal.services.servers.views import ServerView, view_server
from portal.store.models import Server


@dataclass(frozen=True)
class StoredVariable:
    """A declared variable as the form shows it."""

    name: str
    scope: str
    description: str | None
    is_set: bool


@dataclass(frozen=True)
class Stored:
    """What the form needs to know of stored data; `set_at` is when each was set (UTC)."""

    view: ServerView
    origins: Mapping[str, str]
    headers: Mapping[str, tuple[str, ...]]
    env: tuple[str, ...]
    variables: tuple[StoredVariable, ...]
    set_at: Mapping[str, datetime]
    args_stored: bool


def stored_of(session: Session, principal: Principal, row: Server) -> Stored:
    """Return the stored server as `principal` may see it."""
    secrets = row.secrets
    return Stored(
        view=view_server(session, principal, row, masked=True),
        origins={s.field: s.hint or "" for s in secrets if s.field in URL_FIELDS},
        headers={s.name: tuple(s.refers_to) for s in secrets if s.field == "static_headers"},
        env=tuple(s.name for s in secrets if s.field == "env"),
        variables=tuple(
            StoredVariable(v.name, v.scope, v.description, v.sealed is not None)
            for v in row.variables
        ),
        set_at={s.name if s.field == "credentials" else s.field: s.updated_at for s in secrets},
        args_stored=any(s.field == "args" for s in secrets),
    )
