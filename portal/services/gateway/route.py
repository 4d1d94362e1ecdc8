"""The route of a request to one server: its target and headers, allowed tools, and what is missing.

A route is created for one request and contains no database row, so that no connection is held while
the upstream responds.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action, ServerFacts, ToolLimits
from portal.domain.errors import (
    CredentialNeeded,
    Forbidden,
    LookOnly,
    MissingVariables,
    NotFound,
    PortalError,
    UpstreamFailure,
)
from portal.domain.principals import Principal
from portal.domain.upstream import HealthReason, Target
from portal.services.oauth_client.user_tokens import name_of, needed, note_refusal, note_wanted
from portal.services.secrets.token_store import is_exchange, needs_a_person
from portal.services.servers import queries, tool_snapshots
from portal.services.servers.queries import prefix_of
from portal.services.servers.views import KIND_OF_FAULT
from portal.services.upstreams.resolve import (
    NOTHING,
    AuthorizedTarget,
    Passed,
    authorize_to_call,
    authorize_to_list,
)

_NOT_THERE = "MCP server not found, or you do not have access."


@dataclass(frozen=True)
class Missing:
    """What the caller must set up before calling tools: a message with a link, and the same for
    programs."""

    code: str
    message: str
    setup_url: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ToolNames:
    """Published names and descriptions of a server's tools, by their original names."""

    shown: Mapping[str, str] = field(default_factory=dict)
    described: Mapping[str, str] = field(default_factory=dict)

    def without(self, real: Collection[str]) -> "ToolNames":
        """Return these names without those that a server's tools really have."""
        shown = {own: name for own, name in self.shown.items() if name not in real}
        return replace(self, shown=shown)

    def own(self, name: str) -> str:
        """Return the original name of the tool that is published under a name."""
        return next((own for own, shown in self.shown.items() if shown == name), name)


@dataclass(frozen=True)
class OpenRoute:
    """The route of one request to a server. If `target` is None, `missing` or `failure` says why.
    `token` is the access token in the target, or empty."""

    server_id: str
    incarnation: str
    prefix: str
    name: str
    holder: str
    limits: ToolLimits
    names: ToolNames
    target: Target | None = None
    missing: Missing | None = None
    failure: UpstreamFailure | None = None
    knows_hosts: bool = False
    is_personal: bool = False
    """Whether users sign in to the server, so that only they can replace a refused token."""
    token: str = field(default="", repr=False)

    def told(self, failure: UpstreamFailure) -> str:
        """Return the message for the caller; only callers with admin view see hosts."""
        if self.knows_hosts:
            return failure.message
        return KIND_OF_FAULT[HealthReason(failure.reason)]


def open_route(
    session: Session,
    principal: Principal,
    reference: str,
    headers: Passed = NOTHING,
    *,
    refused: str = "",
) -> OpenRoute:
    """Return the caller's route to the server with this alias, name or ID.

    Those of `headers` that the server lists are forwarded. If the upstream `refused` an access
    token, another one is requested. May ask an authorization server, which ends the transaction.
    Raises `Forbidden` with the same message for unknown and hidden servers, and `LookOnly` for
    callers who can see the server but not use it.
    """
    server = _found(session, principal, reference)
    row = server.row
    route = OpenRoute(
        server_id=row.server_id,
        incarnation=row.incarnation,
        prefix=prefix_of(row),
        name=name_of(row),
        holder=_holder(principal),
        limits=authz.tool_limits(principal, server),
        names=_names(session, server),
        knows_hosts=authz.has_admin_view(principal),
        is_personal=needs_a_person(row),
    )
    try:
        found = authorize_to_call(session, principal, row, headers, refused=refused)
        return _led(route, found)
    except MissingVariables as error:
        missing = _missing(error, error.extra["setup_url"], error.extra["names"])
    except CredentialNeeded as error:
        missing = _missing(error, error.extra.get("setup_url") or error.extra.get("connect_url"))
    except UpstreamFailure as failure:
        return replace(route, failure=failure)
    route = replace(route, missing=missing)
    if missing.code == CredentialNeeded.code:
        return route
    try:
        return _led(route, authorize_to_list(session, principal, row, headers))
    except UpstreamFailure as failure:
        return replace(route, failure=failure)


def note_refused(session: Session, principal: Principal, route: OpenRoute) -> Missing:
    """Store that the server refused a new access token; return what the user must do.

    Ends the transaction.
    """
    row = _found(session, principal, route.server_id).row
    if route.is_personal and not is_exchange(row):
        note_refusal(session, row, principal.user_id, route.token)
    return _connecting(needed(session, route.server_id, route.name, "refused"))


def note_more_rights(
    session: Session, principal: Principal, route: OpenRoute, scopes: tuple[str, ...]
) -> Missing:
    """Store that the server requires more scopes than the token has; return what the user must do.

    Ends the transaction.
    """
    row = _found(session, principal, route.server_id).row
    note_wanted(session, row, principal.user_id, scopes)
    return _connecting(needed(session, route.server_id, route.name, scopes=scopes or ("?",)))


def _found(session: Session, principal: Principal, reference: str) -> ServerFacts:
    try:
        return queries.find_server(session, principal, reference, Action.SERVER_USE)
    except LookOnly:
        raise LookOnly(
            "You can see this MCP server but do not have access. Ask an Admin to grant access to"
            " you or one of your teams."
        ) from None
    except (NotFound, Forbidden):
        raise Forbidden(_NOT_THERE) from None


def _holder(principal: Principal) -> str:
    """Return the holder of an upstream session: the user, with any credential, else the key."""
    return f"user {principal.user_id}" if principal.user_id else f"key {principal.key_id}"


def _names(session: Session, server: ServerFacts) -> ToolNames:
    """Return the published names of tools, without any that would hide or equal another name."""
    row = server.row
    wanted = dict(row.tool_name_to_display_name or {})
    taken = {*wanted, *row.allowed_tools}
    if wanted:
        taken |= tool_snapshots.known_names(session, row.server_id)
    given = [shown for shown in wanted.values() if shown]
    shown = {
        own: name
        for own, name in wanted.items()
        if name and name not in taken and given.count(name) == 1
    }
    described = {own: text for own, text in (row.tool_name_to_description or {}).items() if text}
    return ToolNames(shown, described)


def _led(route: OpenRoute, found: AuthorizedTarget) -> OpenRoute:
    return replace(route, target=found.target, token=found.token)


def _connecting(error: CredentialNeeded) -> Missing:
    return _missing(error, error.extra["connect_url"])


def _missing(error: PortalError, link: object, names: object = ()) -> Missing:
    listed = tuple(str(name) for name in names) if isinstance(names, list) else ()
    return Missing(error.code, error.message, str(link or ""), listed)
