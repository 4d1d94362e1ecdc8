"""Servers that are not rows of the database: definitions under test or typed into a form."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.domain.principals import Principal
from portal.domain.servers import ServerFields, Transport
from portal.services.oauth_client import held_definitions
from portal.services.servers.destinations import write_definition
from portal.store.models import Server

_OF_THE_ROW = (
    "server_id",
    "server_name",
    "alias",
    "mcp_access_groups",
    "version",
    "keep_credentials",
)


def load_temporary(session: Session, server_id: str) -> Server | None:
    """Return a held definition under test as a server without a row. Checks no permission."""
    held = held_definitions.held_under(session, server_id)
    if held is None:
        return None
    kept, contents = held
    return unsaved_server(
        session, kept.server_id, kept.incarnation, contents["fields"], author=kept.created_by
    )


def find_temporary(session: Session, principal: Principal, server_id: str) -> Server | None:
    """Return the temporary server, if the caller has admin view; otherwise None."""
    return load_temporary(session, server_id) if authz.has_admin_view(principal) else None


def unsaved_server(
    session: Session,
    server_id: str,
    incarnation: str,
    fields: Mapping[str, Any],
    *,
    author: str | None,
) -> Server:
    """Build a server from JSON `fields`, outside the session, with parts sealed as usual."""
    row = Server(server_id=server_id, incarnation=incarnation, created_by=author, updated_by=author)
    for column in Server.__table__.columns:
        if column.default is not None and getattr(row, column.name) is None:
            default: Any = column.default
            setattr(row, column.name, default.arg if default.is_scalar else default.arg(None))
    row.server_name, row.alias = fields.get("server_name"), fields.get("alias")
    row.sort_key = (row.server_name or row.alias or server_id).casefold()
    parts = {name: value for name, value in fields.items() if name not in _OF_THE_ROW}
    parts["transport"] = Transport(fields.get("transport") or Transport.SSE)
    write_definition(session, row, ServerFields(**parts))  # type: ignore[typeddict-item]
    return row
