"""The only authorization module: who may do what, use which server, and see which of its fields.

Pages, API, OAuth routes, commands and the worker ask here and nowhere else. The module builds SQL
conditions and answers questions; it runs no query and knows no HTTP. `usable_servers` and
`visible_servers` are the SQL equivalents of `may_use` and `may_see`; a property test checks that
each pair agrees.
"""

from functools import cache

from portal.authorization.actions import Action, Predicate, ServerFacts
from portal.authorization.keys import (
    KeyFacts,
    KeyFault,
    SetBy,
    key_complies,
    key_fault,
    owner_is_member,
    personal_keys,
    reach_of_key,
    working_keys,
)
from portal.authorization.predicates import (
    active_admins,
    has_admin_view,
    has_key_issued_by,
    is_active_admin,
    is_admin,
    is_known,
    is_member,
    is_not_restricted,
    is_operator,
    is_person,
    is_unbound,
    may_approve_of,
    may_ask_for_team,
    may_take_endpoint,
    may_take_route,
)
from portal.authorization.server_access import (
    Decision,
    Rule,
    ToolLimits,
    Verdict,
    allowed_tool_names,
    covering_routes,
    evaluate_rules,
    granted_toolsets,
    lets_strangers_sign_in,
    may_see,
    may_use,
    tool_limits,
)
from portal.authorization.sql_conditions import (
    Horizon,
    horizon,
    open_servers,
    own_uses,
    public_servers,
    reviewable_within,
    servers_of_team,
    sign_in_servers,
    usable_servers,
    usable_within,
    visible_servers,
    visible_within,
)
from portal.authorization.visible_fields import VISIBLE_FIELDS, Show, Visibility, shown, visibility
from portal.domain.errors import Forbidden
from portal.domain.principals import Principal

__all__ = [
    "RULES",
    "VISIBLE_FIELDS",
    "Action",
    "Decision",
    "Horizon",
    "KeyFacts",
    "KeyFault",
    "Predicate",
    "Rule",
    "ServerFacts",
    "SetBy",
    "Show",
    "ToolLimits",
    "Verdict",
    "Visibility",
    "active_admins",
    "allowed_actions",
    "allowed_tool_names",
    "covering_routes",
    "evaluate_rules",
    "granted_toolsets",
    "has_admin_view",
    "has_key_issued_by",
    "horizon",
    "is_active_admin",
    "is_admin",
    "is_known",
    "is_member",
    "is_not_restricted",
    "is_operator",
    "is_person",
    "is_unbound",
    "key_complies",
    "key_fault",
    "key_servers",
    "lets_strangers_sign_in",
    "may",
    "may_approve_of",
    "may_ask_for_team",
    "may_see",
    "may_take_endpoint",
    "may_take_route",
    "may_use",
    "open_servers",
    "own_uses",
    "owner_is_member",
    "personal_keys",
    "public_servers",
    "reach_of_key",
    "refusal",
    "require",
    "reviewable_within",
    "servers_of_team",
    "shown",
    "sign_in_servers",
    "tool_limits",
    "usable_servers",
    "usable_within",
    "visibility",
    "visible_servers",
    "visible_within",
    "working_keys",
]

RULES: dict[Action, list[list[Predicate]]] = {  # a clause grants if all its predicates hold
    Action.ACCESS_GROUP_MANAGE: [[is_admin, is_unbound]],
    Action.ACCESS_GROUP_READ: [[has_admin_view]],
    Action.AUDIT_READ: [[has_admin_view]],
    Action.AUDIT_VERIFY: [[is_admin, has_admin_view]],
    Action.CATALOG_READ: [[has_admin_view]],
    Action.COMMAND_MANAGE: [[is_admin, is_unbound]],
    Action.CREDENTIAL_FORGET: [[is_person, is_unbound]],
    Action.CREDENTIAL_OWN: [[is_person, may_use]],
    Action.CREDENTIAL_REMOVE_OTHERS: [[is_admin, may_see]],
    Action.KEY_MANAGE: [[is_admin, is_unbound]],
    Action.KEY_OWN: [[is_person, is_unbound]],
    Action.KEY_OWN_READ: [[is_person]],
    Action.KEY_READ: [[has_admin_view]],
    Action.PREFERENCE_MANAGE: [[is_admin, is_unbound]],
    Action.PREFERENCE_READ: [[has_admin_view]],
    Action.SECRET_CARRY: [[is_admin, is_unbound]],
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
    Action.VAULT_MANAGE: [[is_operator]],
}
_SERVER_ACTIONS = frozenset(
    a for a in Action if any(may_see in c or may_use in c for c in RULES[a])
)
_PREDICATES = frozenset(
    predicate for clauses in RULES.values() for clause in clauses for predicate in clause
)
_CHANGES_A_DEFINITION = frozenset({Action.SERVER_UPDATE, Action.SERVER_DELETE})


def may(principal: Principal, action: Action, server: ServerFacts | None = None) -> bool:
    """Return whether `principal` may do `action`, to `server` if the action concerns one."""
    if action in _CHANGES_A_DEFINITION and server is not None and server.row.origin == "config":
        return False
    return any(
        all(predicate(principal, server) for predicate in clause) for clause in RULES[action]
    )


def require(principal: Principal, action: Action, server: ServerFacts | None = None) -> None:
    """Raise `Forbidden` unless `may`."""
    if not may(principal, action, server):
        raise Forbidden(refusal(action))


def refusal(action: Action) -> str:
    """Return the message for callers who may not do `action`; it names no object."""
    return _REFUSALS.get(action, "You do not have permission to do this. Ask an Admin.")


def allowed_actions(principal: Principal, server: ServerFacts | None = None) -> frozenset[Action]:
    """Return the actions a page may offer, on `server` or, without one, those not about a server.

    Equals `may` for each action, but evaluates every predicate once, because the grid asks for each
    card.
    """
    holding = frozenset(predicate for predicate in _PREDICATES if predicate(principal, server))
    return _granted(
        holding, server is not None, server is not None and server.row.origin == "config"
    )


@cache
def _granted(
    holding: frozenset[Predicate], is_about_a_server: bool, is_from_config: bool
) -> frozenset[Action]:
    candidates = _SERVER_ACTIONS if is_about_a_server else frozenset(Action) - _SERVER_ACTIONS
    if is_from_config:
        candidates -= _CHANGES_A_DEFINITION
    return frozenset(
        action
        for action in candidates
        if any(holding.issuperset(clause) for clause in RULES[action])
    )


_REFUSALS = {
    Action.COMMAND_MANAGE: (
        "A key with its own routes or grants may not add, change or test commands. Use a key"
        " without them, or the server’s page."
    ),
    Action.SECRET_CARRY: (
        "A key with its own routes or grants may not send stored secrets to another host. Use a"
        " key without them, or the server’s page; or send new values, or set keep_credentials to"
        " false."
    ),
    Action.KEY_OWN: "A limited key cannot create or revoke keys.",
    Action.SERVER_CREATE: "Only an Admin (PROXY_ADMIN) may create MCP servers.",
    Action.SERVER_UPDATE: (
        "Only an Admin (PROXY_ADMIN) may PUT /v1/mcp/server. Servers from the config file cannot"
        " be changed."
    ),
    Action.SERVER_DELETE: (
        "Only an Admin (PROXY_ADMIN) may delete MCP servers. Servers from the config file cannot"
        " be deleted."
    ),
}
