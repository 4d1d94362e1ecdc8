"""From a request at one server's address to all that decides about it: where it goes with which
headers, which tools it may name, and what is missing.

A route is made for one request and holds no row, so that nothing of the database is held while an
upstream answers.
"""

from collections.abc import Mapping
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
from portal.services.servers import queries
from portal.services.servers.queries import prefix_of
from portal.services.servers.views import KIND_OF_FAULT
from portal.services.upstreams.resolve import (
    NOTHING,
    AuthorizedTarget,
    Passed,
    authorize_to_call,
    authorize_to_list,
)

_NOT_THERE = "There is no such MCP server, or you may not use it."


@dataclass(frozen=True)
class Missing:
    """What a server needs of the caller before its tools can be called: a sentence with the link,
    and the same for programs."""

    code: str
    message: str
    setup_url: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ToolNames:
    """Under which names the tools of a server are published, and how each is described; by their
    own names."""

    shown: Mapping[str, str] = field(default_factory=dict)
    described: Mapping[str, str] = field(default_factory=dict)

    def own(self, name: str) -> str:
        """The own name of the tool that is published under a name."""
        return next((own for own, shown in self.shown.items() if shown == name), name)


@dataclass(frozen=True)
class Route:
    """One request's way to a server. `target` is None where there is none yet, and `missing` or
    `failure` says why; `token` is the access token in it, "" for none."""

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
    """Whether a person signs in to the server, so that only they can mend a token that it
    refuses."""
    token: str = field(default="", repr=False)

    def told(self, failure: UpstreamFailure) -> str:
        """What went wrong, as far as the caller may know: hosts are for those with admin view."""
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
) -> Route:
    """The way to the server with this alias, name or id, as the caller may go it now.

    Of `headers` those that the server lists go on; where the upstream `refused` an access token,
    another one is got. May ask an authorization server, which ends the transaction at hand. Raises
    `Forbidden`, in the same words for what is not there and for what the caller may not see, and
    `LookOnly` for those who see it.
    """
    server = _found(session, principal, reference)
    row = server.row
    route = Route(
        server_id=row.server_id,
        incarnation=row.incarnation,
        prefix=prefix_of(row),
        name=name_of(row),
        holder=_holder(principal),
        limits=authz.tool_limits(principal, server),
        names=_names(server),
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


def note_refused(session: Session, principal: Principal, route: Route) -> Missing:
    """Remember that the server refused an access token that was fresh; what the person has to do.

    Ends the transaction at hand.
    """
    row = _found(session, principal, route.server_id).row
    if route.is_personal and not is_exchange(row):
        note_refusal(session, row, principal.user_id, route.token)
    return _connecting(needed(session, route.server_id, route.name, "refused"))


def note_more_rights(
    session: Session, principal: Principal, route: Route, scopes: tuple[str, ...]
) -> Missing:
    """Remember that the server wants more rights than the person's token has; what they have to do.

    Ends the transaction at hand.
    """
    row = _found(session, principal, route.server_id).row
    note_wanted(session, row, principal.user_id, scopes)
    return _connecting(needed(session, route.server_id, route.name, scopes=scopes or ("?",)))


def _found(session: Session, principal: Principal, reference: str) -> ServerFacts:
    try:
        return queries.find_server(session, principal, reference, Action.SERVER_USE)
    except LookOnly:
        raise LookOnly(
            "You see this MCP server, and have no access to it. Ask an Admin to grant it to you or"
            " to a team of yours."
        ) from None
    except (NotFound, Forbidden):
        raise Forbidden(_NOT_THERE) from None


def _holder(principal: Principal) -> str:
    """Whose session at an upstream one is: a person's whatever they ask with, else a key's."""
    return f"user {principal.user_id}" if principal.user_id else f"key {principal.key_id}"


def _names(server: ServerFacts) -> ToolNames:
    """The names that tools are published under. One that would hide another tool, or that two would
    have, is not given."""
    row = server.row
    wanted = dict(row.tool_name_to_display_name or {})
    taken = {*wanted, *row.allowed_tools}
    given = [shown for shown in wanted.values() if shown]
    shown = {
        own: name
        for own, name in wanted.items()
        if name and name not in taken and given.count(name) == 1
    }
    described = {own: text for own, text in (row.tool_name_to_description or {}).items() if text}
    return ToolNames(shown, described)


def _led(route: Route, found: AuthorizedTarget) -> Route:
    return replace(route, target=found.target, token=found.token)


def _connecting(error: CredentialNeeded) -> Missing:
    return _missing(error, error.extra["connect_url"])


def _missing(error: PortalError, link: object, names: object = ()) -> Missing:
    listed = tuple(str(name) for name in names) if isinstance(names, list) else ()
    return Missing(error.code, error.message, str(link or ""), listed)
