"""Temporary servers: definitions tested with OAuth before they are saved."""

from dataclasses import replace
from typing import cast

from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.principals import Principal
from portal.domain.servers import URL_FIELDS, ServerFields, check_server_id, check_values
from portal.services import audit
from portal.services.drafts.inheritance import checked, whole
from portal.services.oauth_client import held_definitions
from portal.services.oauth_client.discovery import pin_of
from portal.services.secrets.server_definition import opened
from portal.services.servers import kept_secrets, queries, unsaved
from portal.services.servers.views import ServerView, view_server
from portal.store.models import Server, new_id


def hold_server(session: Session, principal: Principal, fields: ServerFields) -> ServerView:
    """Hold a definition for 300 s, under its id or a new one; the same id replaces it.

    One with the id of a stored server and without secrets inherits that server's credentials, and
    does not change it. Raises what `create_server` raises for the definition, `stdio_not_allowed`
    for a command, and `Conflict` (`credentials_would_move`) if inherited secrets would be sent to
    another host.
    """
    authz.require(principal, Action.SERVER_CREATE)
    server_id = fields.get("server_id") or new_id()
    check_server_id(server_id)
    stored = session.get(Server, server_id, options=queries.PARTS)
    if stored is not None and not authz.may(
        principal, Action.SERVER_UPDATE, queries.facts(session, stored)
    ):
        stored = None
    check_values(kept_secrets.without_masks(fields))
    fields = _settled(session, principal, stored, fields)
    contents = checked(session, server_id, fields, whole(session, stored, fields, as_change=False))
    pin = None
    if stored is not None:
        pin = pin_of(
            session,
            unsaved.unsaved_server(session, server_id, server_id, contents, author=None),
            stored,
        )
    kept = held_definitions.hold(session, principal, server_id, {"fields": contents, "pin": pin})
    audit.record(session, principal, "definition held", "server", server_id, fields=sorted(fields))
    session.flush()
    row = unsaved.unsaved_server(
        session, server_id, kept.incarnation, contents, author=kept.created_by
    )
    groups = tuple(fields.get("mcp_access_groups") or ())
    return replace(view_server(session, principal, row), mcp_access_groups=groups, teams=())


def _settled(
    session: Session, principal: Principal, stored: Server | None, sent: ServerFields
) -> ServerFields:
    """Return the fields, with kept URLs from the stored server. Omitted URLs are not inherited."""
    fields = kept_secrets.settled(session, principal, stored, sent, as_change=False)
    kept = [name for name in URL_FIELDS if name in sent and name not in fields]
    urls = opened(session, stored).urls if stored is not None and kept else {}
    return cast(ServerFields, {**fields, **{name: urls[name] for name in kept if name in urls}})


def delete_expired_servers(session: Session, _principal: Principal) -> None:
    """Delete expired definitions."""
    held_definitions.delete_expired_definitions(session)
