"""Which servers a caller may use and see, and which of their tools.

`usable_servers` and `visible_servers` in `sql_conditions.py` are the SQL equivalents of `may_use`
and `may_see`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from portal.authorization.actions import ServerFacts
from portal.authorization.predicates import has_admin_view
from portal.domain.principals import Principal, Reach
from portal.domain.servers import ApprovalStatus, AuthType, OAuthGrantType
from portal.store.models import Server


class Verdict(StrEnum):
    """The result of one rule: it grants, it refuses, it has no effect, or it does not apply."""

    GRANTS = "grants"
    REFUSES = "refuses"
    PASSES = "passes"
    NOT_MET = "not_met"


class Rule(StrEnum):
    """The rules that decide about using a server."""

    ACTIVE = "active"
    ADDRESS = "address"
    OWNER = "owner"
    """Only for a key that follows its owner."""
    OPEN_TO_ALL = "open_to_all"
    ADMIN_VIEW = "admin_view"
    GRANTS = "grants"


def _active(_principal: Principal, server: ServerFacts) -> Verdict:
    return (
        Verdict.PASSES if server.row.approval_status == ApprovalStatus.ACTIVE else Verdict.REFUSES
    )


def _address(principal: Principal, server: ServerFacts) -> Verdict:
    return Verdict.PASSES if _is_in_reach_of_address(principal, server.row) else Verdict.REFUSES


def _owner(principal: Principal, server: ServerFacts) -> Verdict:
    if principal.owner is None:
        return Verdict.NOT_MET
    return Verdict.PASSES if may_use(principal.owner, server) else Verdict.REFUSES


def _open_to_all(_principal: Principal, server: ServerFacts) -> Verdict:
    return Verdict.GRANTS if server.row.allow_all_keys else Verdict.NOT_MET


def _admin_view(principal: Principal, server: ServerFacts) -> Verdict:
    if not principal.role.has_admin_view:
        return Verdict.NOT_MET
    named = principal.only_servers is None or server.row.server_id in principal.only_servers
    return Verdict.GRANTS if named else Verdict.NOT_MET


def _grants(principal: Principal, server: ServerFacts) -> Verdict:
    # An Admin's key is limited to what it names (rule 2); other grants do not extend it.
    is_judged = not principal.role.has_admin_view
    return Verdict.GRANTS if is_judged and covering_routes(principal, server) else Verdict.NOT_MET


_RULES_OF_USE: dict[Rule, Callable[[Principal, ServerFacts], Verdict]] = {
    Rule.ACTIVE: _active,
    Rule.ADDRESS: _address,
    Rule.OWNER: _owner,
    Rule.OPEN_TO_ALL: _open_to_all,
    Rule.ADMIN_VIEW: _admin_view,
    Rule.GRANTS: _grants,
}


@dataclass(frozen=True)
class Decision:
    """Whether a caller may use a server, the deciding rule, and the verdict of each rule."""

    allowed: bool
    decided_by: Rule
    verdicts: dict[Rule, Verdict]


def evaluate_rules(principal: Principal, server: ServerFacts) -> Decision:
    """Evaluate all rules: the first refusal decides, else the first grant, else no grant."""
    verdicts = {rule: ask(principal, server) for rule, ask in _RULES_OF_USE.items()}
    for wanted in (Verdict.REFUSES, Verdict.GRANTS):
        for rule, verdict in verdicts.items():
            if verdict is wanted:
                return Decision(verdict is Verdict.GRANTS, rule, verdicts)
    return Decision(False, Rule.GRANTS, verdicts)


def may_use(principal: Principal, server: ServerFacts | None) -> bool:
    """Return whether a server is active, granted and available at the caller's address.

    Equals `evaluate_rules` without the reasons, for use on every row of a list.
    """
    if server is None:
        return False
    verdicts = [ask(principal, server) for ask in _RULES_OF_USE.values()]
    return Verdict.REFUSES not in verdicts and Verdict.GRANTS in verdicts


def may_see(principal: Principal, server: ServerFacts | None) -> bool:
    """Return `may_use`, or `view_all` (rule 6), or a submission with admin view (rule 1)."""
    if server is None or not _is_in_reach_of_address(principal, server.row):
        return False
    if server.row.approval_status != ApprovalStatus.ACTIVE:
        return has_admin_view(principal) and principal.only_servers is None
    return (principal.view_all and not principal.is_restricted_key) or may_use(principal, server)


def lets_strangers_sign_in(principal: Principal, server: ServerFacts | None) -> bool:
    """Return whether rule 8 applies: an active OAuth server whose upstream authenticates users."""
    if server is None or server.row.approval_status != ApprovalStatus.ACTIVE:
        return False
    row = server.row
    is_of_people = (
        row.auth_type == AuthType.OAUTH2 and row.oauth2_flow != OAuthGrantType.CLIENT_CREDENTIALS
    )
    return (
        is_of_people
        and row.delegate_auth_to_upstream is True
        and _is_in_reach_of_address(principal, row)
    )


def granted_toolsets(principal: Principal) -> frozenset[str] | None:
    """Return the toolsets granted to the principal; None means all.

    With admin view all, unless the key names some. Otherwise as for tools: within one route, every
    level that names toolsets narrows them; between routes, the wider one applies. A key that
    follows its owner has only toolsets that its owner has.
    """
    if has_admin_view(principal):
        return principal.only_toolsets
    named = _named_toolsets(principal)
    if principal.owner is None:
        return named or frozenset()
    of_owner = _named_toolsets(principal.owner) or frozenset()
    return of_owner if named is None else named & of_owner


def _named_toolsets(principal: Principal) -> frozenset[str] | None:
    """Return the toolsets that the routes of access name; None if no level names any."""
    narrowed = (
        [level.toolset_ids for level in route if level.explicit_toolsets is not None]
        for route in principal.routes_of_access
    )
    limits = [frozenset.intersection(*of_route) for of_route in narrowed if of_route]
    return frozenset().union(*limits) if limits else None


@dataclass(frozen=True)
class ToolLimits:
    """The tools of a server that the caller may use, by its allow-list and by permissions.

    None means all.
    """

    allow_list: frozenset[str] | None
    permitted: frozenset[str] | None

    def allow(self, name: str) -> bool:
        """Return whether the tool may be called; names must match exactly."""
        return all(limit is None or name in limit for limit in (self.allow_list, self.permitted))

    def name(self, name: str) -> bool:
        """Return whether a limit names this tool."""
        return any(
            limit is not None and name in limit for limit in (self.allow_list, self.permitted)
        )


def tool_limits(principal: Principal, server: ServerFacts) -> ToolLimits:
    """Return the limits on the tools of `server`, for callers who may use it."""
    # An empty list is no limit, unless the server enforces it (LiteLLM's
    # `tool_allowlist_enforced`).
    enforced = (server.row.mcp_info or {}).get("tool_allowlist_enforced") is True
    listed = frozenset(server.row.allowed_tools) if server.row.allowed_tools or enforced else None
    return ToolLimits(listed, allowed_tool_names(principal, server))


def allowed_tool_names(principal: Principal, server: ServerFacts) -> frozenset[str] | None:
    """Return the tools of `server` that the permissions allow; None for no limit.

    Within one route of access, every level that names the server's tools narrows them; between
    routes, the wider one applies. A key that follows its owner may call only tools that its owner
    may call.
    """
    names = _named_tools(principal, server)
    of_owner = allowed_tool_names(principal.owner, server) if principal.owner is not None else None
    if names is None or of_owner is None:
        return of_owner if names is None else names
    return names & of_owner


def _named_tools(principal: Principal, server: ServerFacts) -> frozenset[str] | None:
    routes = covering_routes(principal, server)
    limits_of_routes = list[frozenset[str]]()
    for route in routes:
        limits = [
            level.tools[server.row.server_id]
            for level in route
            if server.row.server_id in level.tools
        ]
        if not limits:
            return None
        limits_of_routes.append(frozenset.intersection(*limits))
    return frozenset().union(*limits_of_routes) if routes else None


def covering_routes(principal: Principal, server: ServerFacts) -> list[tuple[Reach, ...]]:
    """Return the routes of access in which every level includes the server."""
    row_id = server.row.server_id
    groups = server.access_group_ids
    return [
        route
        for route in principal.routes_of_access
        if route and all(level.covers(row_id, groups) for level in route)
    ]


def _is_in_reach_of_address(principal: Principal, row: Server) -> bool:
    return principal.is_internal or row.available_on_public_internet or row.is_public
