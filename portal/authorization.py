"""THE module that decides: who may do what, who reaches which server, and who sees which of its fields.

Pages, API, OAuth routes, commands and the worker all ask here and nowhere else. It builds conditions and answers
questions; it runs no query and speaks no HTTP. `usable_servers` and `visible_servers` are the SQL twins of `may_use`
and `may_see`; a property test holds each pair together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, false, or_, select, true

from portal.domain.errors import Forbidden
from portal.domain.principals import Principal, Reach, Role
from portal.domain.servers import ApprovalStatus, AuthType, OAuthFlow
from portal.store.models import AccessGroupServer, Server, User


class Action(StrEnum):
    """Everything that can be asked for, as `<resource>:<action>`."""

    ACCESS_GROUP_MANAGE = "access_group:manage"  # create, change and delete access groups
    ACCESS_GROUP_READ = "access_group:read"  # see access groups with their servers
    AUDIT_READ = "audit:read"  # read the record of changes
    AUDIT_VERIFY = "audit:verify"  # check that the record of changes is whole
    CATALOG_READ = "catalog:read"  # see the lists of well-known servers and services to pick from
    CREDENTIAL_OWN = "credential:own"  # store and remove one's own key for a server
    CREDENTIAL_REMOVE_OTHERS = "credential:remove_others"  # remove somebody else's values
    KEY_MANAGE = "key:manage"  # issue, change and revoke anybody's API keys
    KEY_OWN = "key:own"  # issue and revoke one's own API keys
    KEY_OWN_READ = "key:own_read"  # see one's own API keys
    KEY_READ = "key:read"  # see all API keys, never their secrets
    PREFERENCE_MANAGE = "preference:manage"  # change instance settings
    PREFERENCE_READ = "preference:read"  # see instance settings
    SERVER_ACCEPT = "server:accept"  # compare the tool definitions of a server, and accept changed ones
    SERVER_CREATE = "server:create"  # add a server, or try out a definition
    SERVER_DELETE = "server:delete"  # remove a server with all that hangs on it
    SERVER_INSPECT = "server:inspect"  # see configuration, access and health of servers
    SERVER_PROBE = "server:probe"  # check a server's health now
    SERVER_READ = "server:read"  # see that a server exists, and its public facts
    SERVER_RENEW = "server:renew"  # refresh tokens of, and register a client at, a server's sign-in by the portal
    SERVER_REVEAL = "server:reveal"  # read url, header, env and global values verbatim
    SERVER_SIGN_IN = "server:sign_in"  # sign in to a server by way of the portal, as MCP clients do
    SERVER_UPDATE = "server:update"  # change a server
    SERVER_USE = "server:use"  # list and call a server's tools
    SUBMISSION_DECIDE = "submission:decide"  # approve and reject what Members propose
    SUBMISSION_MAKE = "submission:make"  # propose a server for review
    SUBMISSION_READ = "submission:read"  # see the review queue
    TEAM_MANAGE = "team:manage"  # create, change and delete teams
    TEAM_READ = "team:read"  # see all teams
    TOOLSET_MANAGE = "toolset:manage"  # create, change and delete toolsets
    TOOLSET_READ = "toolset:read"  # see every toolset, granted or not
    USER_MANAGE = "user:manage"  # create, change and deactivate people
    USER_READ = "user:read"  # see all people
    VALUES_OWN = "values:own"  # store and remove one's own values of a server's variables


@dataclass(frozen=True)
class ServerFacts:
    """What a decision needs to know of a server: its row and the access groups it is in."""

    row: Server
    access_group_ids: frozenset[str]


Predicate = Callable[[Principal, ServerFacts | None], bool]


def is_admin(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """A full Admin, in person or by key."""
    return principal.role is Role.ADMIN


def has_admin_view(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Admin or Read-only admin; a restricted key never has it, whoever owns it."""
    return principal.role.has_admin_view and not principal.is_restricted_key


def is_person(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Somebody with an own user record, in person or by key."""
    return principal.user_id is not None


def is_not_restricted(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Whoever asks, unless it is by a restricted key."""
    return not principal.is_restricted_key


def is_unbound(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Whoever asks with all that they have: in person, or by a key without routes and grants of its own.

    A key with any may hand out no more than it has itself, and whoever changes people, keys, teams, groups, toolsets
    and settings can hand out anything: such a key changes none of them.
    """
    own = ("key", principal.key_id)
    has_grants = any(level.holder == own for route in principal.routes_of_access for level in route)
    return principal.key_id is None or not (principal.is_restricted_key or has_grants)


def is_known(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """Somebody who showed a key or has signed in."""
    return principal.user_id is not None or principal.key_id is not None or principal.is_operator


def is_member(principal: Principal, _server: ServerFacts | None = None) -> bool:
    """A Member, in person or by key; an Admin adds servers directly, a Viewer proposes none."""
    return principal.role is Role.MEMBER and not principal.is_restricted_key


class Verdict(StrEnum):
    """What one rule says: it lets in, it keeps out, it has no objection, or it is not met."""

    GRANTS = "grants"
    REFUSES = "refuses"
    PASSES = "passes"
    NOT_MET = "not_met"


class Rule(StrEnum):
    """The rules of `1-system.md`, 4 that decide about using a server, by the number they have there."""

    ACTIVE = "active"  # 1
    ADDRESS = "address"  # 7
    OPEN_TO_ALL = "open_to_all"  # 5
    ADMIN_VIEW = "admin_view"  # 2
    GRANTS = "grants"  # 3 and 4


def _active(_principal: Principal, server: ServerFacts) -> Verdict:
    return Verdict.PASSES if server.row.approval_status == ApprovalStatus.ACTIVE else Verdict.REFUSES


def _address(principal: Principal, server: ServerFacts) -> Verdict:
    return Verdict.PASSES if _is_in_reach_of_address(principal, server.row) else Verdict.REFUSES


def _open_to_all(_principal: Principal, server: ServerFacts) -> Verdict:
    return Verdict.GRANTS if server.row.allow_all_keys else Verdict.NOT_MET


def _admin_view(principal: Principal, server: ServerFacts) -> Verdict:
    if not principal.role.has_admin_view:
        return Verdict.NOT_MET
    named = principal.only_servers is None or server.row.server_id in principal.only_servers
    return Verdict.GRANTS if named else Verdict.NOT_MET


def _grants(principal: Principal, server: ServerFacts) -> Verdict:
    # What an Admin's key names narrows it (rule 2); further grants do not widen it again.
    is_judged = not principal.role.has_admin_view
    return Verdict.GRANTS if is_judged and covering_routes(principal, server) else Verdict.NOT_MET


_RULES_OF_USE: dict[Rule, Callable[[Principal, ServerFacts], Verdict]] = {
    Rule.ACTIVE: _active,
    Rule.ADDRESS: _address,
    Rule.OPEN_TO_ALL: _open_to_all,
    Rule.ADMIN_VIEW: _admin_view,
    Rule.GRANTS: _grants,
}


@dataclass(frozen=True)
class Decision:
    """Whether somebody may use a server, which rule settles it, and what each rule says."""

    allowed: bool
    decided_by: Rule
    verdicts: dict[Rule, Verdict]


def decide(principal: Principal, server: ServerFacts) -> Decision:
    """Ask every rule. The first that refuses decides, else the first that grants, else the grants that are missing."""
    verdicts = {rule: ask(principal, server) for rule, ask in _RULES_OF_USE.items()}
    for wanted in (Verdict.REFUSES, Verdict.GRANTS):
        for rule, verdict in verdicts.items():
            if verdict is wanted:
                return Decision(verdict is Verdict.GRANTS, rule, verdicts)
    return Decision(False, Rule.GRANTS, verdicts)


def may_use(principal: Principal, server: ServerFacts | None) -> bool:
    """Rules 1 to 5 and 7 of `1-system.md`, 4: active, granted, and its address rule lets the caller in."""
    return server is not None and decide(principal, server).allowed


def may_see(principal: Principal, server: ServerFacts | None) -> bool:
    """As `may_use`, plus `view_all` (rule 6), plus servers under review for those with admin view (rule 1)."""
    if server is None or not _is_in_reach_of_address(principal, server.row):
        return False
    if server.row.approval_status != ApprovalStatus.ACTIVE:
        return has_admin_view(principal) and principal.only_servers is None
    return (principal.view_all and not principal.is_restricted_key) or may_use(principal, server)


def lets_strangers_sign_in(principal: Principal, server: ServerFacts | None) -> bool:
    """Rule 8: an active OAuth server that leaves signing in to its upstream; there it is found out who they are."""
    if server is None or server.row.approval_status != ApprovalStatus.ACTIVE:
        return False
    row = server.row
    is_of_people = row.auth_type == AuthType.OAUTH2 and row.oauth2_flow != OAuthFlow.CLIENT_CREDENTIALS
    return is_of_people and row.delegate_auth_to_upstream is True and _is_in_reach_of_address(principal, row)


RULES: dict[Action, list[list[Predicate]]] = {  # any clause of all predicates grants
    Action.ACCESS_GROUP_MANAGE: [[is_admin, is_unbound]],
    Action.ACCESS_GROUP_READ: [[has_admin_view]],
    Action.AUDIT_READ: [[has_admin_view]],
    Action.AUDIT_VERIFY: [[is_admin, has_admin_view]],
    Action.CATALOG_READ: [[has_admin_view]],
    Action.CREDENTIAL_OWN: [[is_person, may_use]],
    Action.CREDENTIAL_REMOVE_OTHERS: [[is_admin, may_see]],
    Action.KEY_MANAGE: [[is_admin, is_unbound]],
    Action.KEY_OWN: [[is_person, is_not_restricted]],
    Action.KEY_OWN_READ: [[is_person]],
    Action.KEY_READ: [[has_admin_view]],
    Action.PREFERENCE_MANAGE: [[is_admin, is_unbound]],
    Action.PREFERENCE_READ: [[has_admin_view]],
    Action.SERVER_ACCEPT: [[is_admin, has_admin_view, may_see]],
    Action.SERVER_CREATE: [[is_admin]],
    Action.SERVER_DELETE: [[is_admin, may_see]],
    Action.SERVER_INSPECT: [[has_admin_view, may_see]],
    Action.SERVER_PROBE: [[is_admin, may_see]],
    Action.SERVER_READ: [[may_see]],
    Action.SERVER_RENEW: [[is_known, may_use]],
    Action.SERVER_REVEAL: [[is_admin, has_admin_view, may_see]],
    Action.SERVER_SIGN_IN: [[is_known, may_use], [lets_strangers_sign_in]],
    Action.SERVER_UPDATE: [[is_admin, may_see]],
    Action.SERVER_USE: [[may_use]],
    Action.SUBMISSION_DECIDE: [[is_admin]],
    Action.SUBMISSION_MAKE: [[is_member]],
    Action.SUBMISSION_READ: [[has_admin_view]],
    Action.TEAM_MANAGE: [[is_admin, is_unbound]],
    Action.TEAM_READ: [[has_admin_view]],
    Action.TOOLSET_MANAGE: [[is_admin, is_unbound]],
    Action.TOOLSET_READ: [[has_admin_view]],
    Action.USER_MANAGE: [[is_admin, is_unbound]],
    Action.USER_READ: [[has_admin_view]],
    Action.VALUES_OWN: [[is_person, may_see]],
}
_SERVER_ACTIONS = frozenset(a for a in Action if any(may_see in c or may_use in c for c in RULES[a]))
_CHANGES_A_DEFINITION = frozenset({Action.SERVER_UPDATE, Action.SERVER_DELETE})


def may(principal: Principal, action: Action, server: ServerFacts | None = None) -> bool:
    """Whether `principal` may do `action` (to `server`, where the action is about one)."""
    if action in _CHANGES_A_DEFINITION and server is not None and server.row.origin == "config":
        return False
    return any(all(predicate(principal, server) for predicate in clause) for clause in RULES[action])


def require(principal: Principal, action: Action, server: ServerFacts | None = None) -> None:
    """Raise `Forbidden` unless `may`."""
    if not may(principal, action, server):
        raise Forbidden(refusal(action))


def refusal(action: Action) -> str:
    """What somebody is told who may not do `action`; it names nothing."""
    return _REFUSALS.get(action, "You may not do this. Ask an Admin.")


def allowed_actions(principal: Principal, server: ServerFacts | None = None) -> frozenset[Action]:
    """What a page may offer: actions on `server`, or, without one, those that concern no single server."""
    candidates = _SERVER_ACTIONS if server is not None else frozenset(Action) - _SERVER_ACTIONS
    return frozenset(action for action in candidates if may(principal, action, server))


def may_take_route(principal: Principal, path: str) -> bool:
    """Whether a key's `allowed_routes`, which are path prefixes, let it call `path`; a key without any is not bound."""
    prefixes = [route.rstrip("/") for route in principal.allowed_routes]
    return not prefixes or any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


def may_ask_for_team(principal: Principal, team_id: str) -> bool:
    """Whether a list may be narrowed to what a team is granted: by those with admin view and by its members."""
    return has_admin_view(principal) or (team_id in principal.team_ids and not principal.is_restricted_key)


def is_active_admin(user: User) -> bool:
    """Somebody who can govern the portal. There is always one: the last can be neither changed nor removed."""
    return user.role == Role.ADMIN and user.is_active


def active_admins() -> ColumnElement[bool]:
    """The condition on `User` that says what `is_active_admin` says."""
    return and_(User.role == Role.ADMIN.value, User.is_active)


_REFUSALS = {
    Action.KEY_OWN: "A restricted key cannot issue or revoke keys.",
    Action.SERVER_CREATE: "Only an Admin (PROXY_ADMIN) may create MCP servers.",
    Action.SERVER_UPDATE: "Only an Admin (PROXY_ADMIN) may PUT /v1/mcp/server, and no server from config.",
    Action.SERVER_DELETE: "Only an Admin (PROXY_ADMIN) may delete MCP servers, and none from config.",
}


# Which servers


def usable_servers(principal: Principal) -> ColumnElement[bool]:
    """The condition on `Server` that says what `may_use` says."""
    return and_(_ACTIVE, _address_condition(principal), or_(Server.allow_all_keys, _grant_condition(principal)))


def visible_servers(principal: Principal) -> ColumnElement[bool]:
    """The condition on `Server` that says what `may_see` says of active servers, which are those that lists show."""
    if principal.view_all and not principal.is_restricted_key:
        return and_(_ACTIVE, _address_condition(principal))
    return usable_servers(principal)


def reviewable_servers(principal: Principal) -> ColumnElement[bool]:
    """The condition on `Server` that says what `may_see` says, servers under review among them, with admin view."""
    if principal.only_servers is not None:
        return usable_servers(principal)
    under_review = and_(Server.approval_status != ApprovalStatus.ACTIVE.value, _address_condition(principal))
    return or_(usable_servers(principal), under_review)


def public_servers() -> ColumnElement[bool]:
    """The condition on `Server` for what strangers may know of: active, and listed publicly by an Admin."""
    return and_(_ACTIVE, Server.is_public)


def servers_of_team(reach: Reach) -> ColumnElement[bool]:
    """The condition on `Server` for what one team is granted."""
    return and_(_ACTIVE, _reach_condition(reach))


def granted_toolsets(principal: Principal) -> frozenset[str] | None:
    """The toolsets that are granted to the principal; None is every one.

    With admin view all, unless the key names some itself (ACC-27). Else, as for tools: within one route every level
    that names toolsets narrows, and between routes the wider wins.
    """
    if has_admin_view(principal):
        return principal.only_toolsets
    narrowed = (
        [level.toolset_ids for level in route if level.explicit_toolsets is not None]
        for route in principal.routes_of_access
    )
    return frozenset().union(*(frozenset.intersection(*limits) for limits in narrowed if limits))


@dataclass(frozen=True)
class ToolLimits:
    """Which tools of one server are left to a principal: by the server's own list, and by permissions. None: all."""

    allow_list: frozenset[str] | None
    permitted: frozenset[str] | None

    def allow(self, name: str) -> bool:
        """Whether the tool may be called; names are compared as they are written."""
        return all(limit is None or name in limit for limit in (self.allow_list, self.permitted))

    def name(self, name: str) -> bool:
        """Whether a limit names just this tool."""
        return any(limit is not None and name in limit for limit in (self.allow_list, self.permitted))


def tool_limits(principal: Principal, server: ServerFacts) -> ToolLimits:
    """The limits on the tools of `server`, for those who may use it."""
    # An empty list is no list, unless the server says that it is one (LiteLLM's `tool_allowlist_enforced`).
    enforced = (server.row.mcp_info or {}).get("tool_allowlist_enforced") is True
    listed = frozenset(server.row.allowed_tools) if server.row.allowed_tools or enforced else None
    return ToolLimits(listed, allowed_tool_names(principal, server))


def allowed_tool_names(principal: Principal, server: ServerFacts) -> frozenset[str] | None:
    """The tools of `server` that the tool permissions leave the principal; None is no limit.

    Within one route of access every level that names the server's tools narrows; between routes the wider wins.
    """
    routes, limits_of_routes = covering_routes(principal, server), list[frozenset[str]]()
    for route in routes:
        limits = [level.tools[server.row.server_id] for level in route if server.row.server_id in level.tools]
        if not limits:
            return None
        limits_of_routes.append(frozenset.intersection(*limits))
    return frozenset().union(*limits_of_routes) if routes else None


_ACTIVE = Server.approval_status == ApprovalStatus.ACTIVE.value


def covering_routes(principal: Principal, server: ServerFacts) -> list[tuple[Reach, ...]]:
    """The routes of access in which every level names the server."""
    row_id, groups = server.row.server_id, server.access_group_ids
    return [
        route for route in principal.routes_of_access if route and all(level.covers(row_id, groups) for level in route)
    ]


def _grant_condition(principal: Principal) -> ColumnElement[bool]:
    if _sees_all(principal):
        return true()
    if _is_narrowed_admin(principal):
        return Server.server_id.in_(principal.only_servers or ())
    routes = [route for route in principal.routes_of_access if route]
    return or_(false(), *(and_(*(_reach_condition(level) for level in route)) for route in routes))


def _sees_all(principal: Principal) -> bool:
    return principal.role.has_admin_view and principal.only_servers is None


def _is_narrowed_admin(principal: Principal) -> bool:
    return principal.role.has_admin_view and principal.only_servers is not None


def _reach_condition(reach: Reach) -> ColumnElement[bool]:
    named = Server.server_id.in_(reach.server_ids) if reach.server_ids else false()
    if not reach.access_group_ids:
        return named
    members = select(AccessGroupServer.server_id).where(AccessGroupServer.access_group_id.in_(reach.access_group_ids))
    return or_(named, Server.server_id.in_(members))


def _is_in_reach_of_address(principal: Principal, row: Server) -> bool:
    return principal.is_internal or row.available_on_public_internet or row.is_public


def _address_condition(principal: Principal) -> ColumnElement[bool]:
    if principal.is_internal:
        return true()
    return or_(Server.available_on_public_internet, Server.is_public)


def sign_in_servers(principal: Principal) -> ColumnElement[bool]:
    """The condition on `Server` for those that people sign in to by way of the portal, as far as the caller may know.

    Strangers may know of all that their address reaches: clients read how to sign in before anybody does.
    """
    of_people = and_(
        Server.auth_type == AuthType.OAUTH2.value,
        or_(Server.oauth2_flow.is_(None), Server.oauth2_flow != OAuthFlow.CLIENT_CREDENTIALS.value),
    )
    return and_(of_people, _known_of(principal))


def key_servers(principal: Principal) -> ColumnElement[bool]:
    """The condition on `Server` for those to which each person brings their own key, as far as the caller may know."""
    return and_(Server.is_byok, _known_of(principal))


def _known_of(principal: Principal) -> ColumnElement[bool]:
    return usable_servers(principal) if is_known(principal) else and_(_ACTIVE, _address_condition(principal))


# Which fields


class Visibility(StrEnum):
    """How much of a server a viewer sees (`1-system.md`, 5)."""

    FULL = "full"
    INVENTORY = "inventory"
    MEMBER = "member"
    RESTRICTED = "restricted"


class Show(StrEnum):
    """How a field is shown to a visibility that may see it."""

    VERBATIM = "verbatim"
    ORIGIN = "origin"  # of a URL: scheme, host and port
    NAMES = "names"  # of a mapping: the keys, every value masked
    NO_VALUES = "no_values"  # of variables: names, scopes and descriptions
    ONLY_IS_PUBLIC = "only_is_public"  # of mcp_info
    KIND_OF_FAULT = "kind_of_fault"  # of a health error: what went wrong, without the host it names


def visibility(principal: Principal) -> Visibility:
    """Which of the columns of the field table holds for `principal`."""
    if principal.is_restricted_key:
        return Visibility.RESTRICTED
    if principal.role is Role.ADMIN:
        return Visibility.FULL
    return Visibility.INVENTORY if principal.role is Role.ADMIN_VIEWER else Visibility.MEMBER


_ALL = dict.fromkeys(Visibility, Show.VERBATIM)
_NOT_RESTRICTED: dict[Visibility, Show] = {v: Show.VERBATIM for v in Visibility if v is not Visibility.RESTRICTED}
_URL = {Visibility.FULL: Show.VERBATIM, Visibility.INVENTORY: Show.ORIGIN}
_MAPPING = {Visibility.FULL: Show.VERBATIM, Visibility.INVENTORY: Show.NAMES}
_ADMIN_VIEW = {Visibility.FULL: Show.VERBATIM, Visibility.INVENTORY: Show.VERBATIM}

VISIBLE_FIELDS: dict[str, dict[Visibility, Show]] = {  # an allow-list: a field that is not here is shown to nobody
    **dict.fromkeys(
        (
            "server_id", "server_name", "alias", "description", "transport", "auth_type", "is_byok",
            "byok_description", "byok_api_key_help_url", "has_user_credential",
        ),
        _ALL,
    ),
    "mcp_info": {**_NOT_RESTRICTED, Visibility.RESTRICTED: Show.ONLY_IS_PUBLIC},
    "health_check_error": {**_ADMIN_VIEW, Visibility.MEMBER: Show.KIND_OF_FAULT},
    **dict.fromkeys(
        (
            "instructions", "mcp_access_groups", "teams", "allowed_tools", "tool_name_to_display_name",
            "tool_name_to_description", "oauth2_flow", "allow_all_keys", "available_on_public_internet",
            "delegate_auth_to_upstream", "oauth_passthrough", "source_url", "timeout", "status", "health_check_reason",
            "last_health_check", "approval_status", "submitted_by", "submitted_at",
            "reviewed_by", "reviewed_at", "review_notes", "created_at", "created_by", "updated_at", "updated_by",
            "version",
        ),
        _NOT_RESTRICTED,
    ),
    **dict.fromkeys(("url", "spec_path", "authorization_url", "token_url", "registration_url"), _URL),
    **dict.fromkeys(("static_headers", "env"), _MAPPING),
    **dict.fromkeys(("extra_headers", "command", "token_validation"), _ADMIN_VIEW),
    "args": {Visibility.FULL: Show.VERBATIM},
    "env_vars": {Visibility.FULL: Show.VERBATIM, Visibility.INVENTORY: Show.NO_VALUES},
}  # fmt: skip


def shown(principal: Principal, field: str) -> Show | None:
    """How `field` of a server is shown to `principal`; None is not at all."""
    return VISIBLE_FIELDS.get(field, {}).get(visibility(principal))
