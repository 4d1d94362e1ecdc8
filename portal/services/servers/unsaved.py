"""A server that is no row of the database: made out of a definition that is only held for a test,
or typed in."""

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
    """A definition under test that is still held, as a server that is no row. Asks for nobody's
    rights."""
    held = held_definitions.held_under(session, server_id)
    if held is None:
        return None
    kept, contents = held
    return server_of(
        session, kept.server_id, kept.incarnation, contents["fields"], author=kept.created_by
    )


def find_temporary(session: Session, principal: Principal, server_id: str) -> Server | None:
    """As `load_temporary`, for those with admin view; for all others there is none."""
    return load_temporary(session, server_id) if authz.has_admin_view(principal) else None


def server_of(
    session: Session,
    server_id: str,
    incarnation: str,
    fields: Mapping[str, Any],
    *,
    author: str | None,
) -> Server:
    """The server that JSON `fields` describe: with its parts, sealed as those of a stored one, but
    in no session."""
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
