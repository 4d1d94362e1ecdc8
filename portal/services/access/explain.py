"""Explain access: what each rule says about a user or key, a server, and optionally a tool.

The verdicts are those of `authorization.evaluate_rules`, which also makes the real decisions. This
module adds only the explanations and the next step that would change the result.
"""

from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action, KeyFault, Rule, ServerFacts, Verdict
from portal.domain.addresses import is_address
from portal.domain.errors import InvalidInput, NotFound, Unauthenticated
from portal.domain.principals import Principal, Reach
from portal.services.access import pickers
from portal.services.access.principals import judge_keys, principal_for_key_id, principal_for_user
from portal.services.servers import queries
from portal.store.models import AccessGroup, ApiKey, Team, Toolset, User

CALL_ROUTE = "/v1/mcp/tools/call"


@dataclass(frozen=True)
class RuleAnswer:
    """One rule, its verdict (`grants`, `refuses`, `passes`, `not_met`), and the reason."""

    rule: str
    verdict: str
    why: str


@dataclass(frozen=True)
class NextStep:
    """What would change the result: a stable action, a text, and the id of the object to change."""

    action: str
    text: str
    target_id: str | None = None


@dataclass(frozen=True)
class Explanation:
    """The result; `decided_by` is the deciding rule. No next step if access is allowed."""

    allowed: bool
    decided_by: str
    rules: tuple[RuleAnswer, ...]
    next_step: NextStep | None


@dataclass(frozen=True)
class _Asked:
    """The server, the principal, and the names for the texts."""

    session: Session
    principal: Principal
    server: ServerFacts
    who: str
    names: dict[tuple[str, str], str]


def explain_access(
    session: Session,
    principal: Principal,
    *,
    user_id: str = "",
    key_id: str = "",
    server_id: str,
    tool: str = "",
    address: str | None = None,
) -> Explanation:
    """Explain whether a user or key may use the server, and call the tool if one is given.

    `address` defaults to the caller's. Raises `InvalidInput` unless exactly one of `user_id` and
    `key_id` is given, and `NotFound`.
    """
    authz.require(principal, Action.USER_READ)
    if bool(user_id) == bool(key_id):
        raise InvalidInput("Choose either a user or a key.", field="user_id")
    if not server_id:
        raise InvalidInput("Choose a server.", field="server_id")
    if address and not is_address(address):
        raise InvalidInput("Enter an IP address, for example 203.0.113.7.", field="address")
    who = _name_of(session, principal, user_id, key_id)
    server = queries.find_server(session, principal, server_id, Action.SERVER_INSPECT, parts=False)
    address = address or principal.address
    try:
        judged = (
            principal_for_user(session, user_id, address)
            if user_id
            else principal_for_key_id(session, key_id, address)
        )
    except Unauthenticated:
        return _shut_out(session, user_id, key_id, who)
    asked = _Asked(session, judged, server, who, _names(session, principal, judged))
    explanation = _of_server(asked)
    return _with_tool(asked, explanation, tool) if tool else explanation


def _name_of(session: Session, principal: Principal, user_id: str, key_id: str) -> str:
    """Return the display name of the user or key. Raises `NotFound`."""
    named = pickers.name_people(session, principal, [user_id]) if user_id else {}
    named = pickers.name_keys(session, principal, [key_id]) if key_id else named
    if not named:
        thing = f"User {user_id[:64]}" if user_id else f"API key {key_id[:64]}"
        raise NotFound(f"{thing} not found.", field="user_id" if user_id else "key_id")
    return named[user_id or key_id].text


def _shut_out(session: Session, user_id: str, key_id: str, who: str) -> Explanation:
    """Explain why a user or key cannot authenticate, so that no rule applies."""
    key = session.get(ApiKey, key_id) if key_id else None
    owner = user_id or (key.user_id if key else None) or ""
    user = session.get(User, owner)
    name = (user.display_name or user.email or owner) if user is not None else owner
    fault = (
        judge_keys(session, [key_id], None)[key_id][0]
        if key is not None
        else KeyFault.OWNER_INACTIVE
    )
    if fault is KeyFault.REVOKED:
        why = f"{who} is revoked."
        step = NextStep("issue_key", "Create a new key")
    elif fault is KeyFault.OWNER_INACTIVE:
        why = f"{name} is deactivated and cannot sign in."
        step = NextStep("open_user", f"Reactivate {name}", owner)
    elif fault is KeyFault.LEFT_TEAM and key is not None:
        team = session.get(Team, key.team_id)
        alias = team.team_alias if team is not None else str(key.team_id)
        why = f"{who} belongs to team {alias}, but its owner {name} is not a member."
        step = NextStep("open_team", f"Add {name} to team {alias}", key.team_id)
    else:
        why = f"{who} has expired."
        step = NextStep("issue_key", "Create a new key")
    return Explanation(False, "identity", (RuleAnswer("identity", Verdict.REFUSES, why),), step)


def _of_server(asked: _Asked) -> Explanation:
    decision = authz.evaluate_rules(asked.principal, asked.server)
    rules = tuple(
        RuleAnswer(rule, verdict, _why(asked, rule, verdict))
        for rule, verdict in decision.verdicts.items()
        if rule is not Rule.OWNER or asked.principal.owner is not None
    )
    step = None if decision.allowed else _step(asked, decision.decided_by)
    lacks_grants = decision.decided_by is Rule.GRANTS and not decision.allowed
    if lacks_grants and authz.may_see(asked.principal, asked.server):
        why = "Everyone can see the server, but that does not allow using it."
        rules += (RuleAnswer("view_all", Verdict.NOT_MET, why),)
    return Explanation(decision.allowed, decision.decided_by, rules, step)


def _with_tool(asked: _Asked, reached: Explanation, tool: str) -> Explanation:
    """Add the rules for one tool: the server's allowed tools, permissions, and the key's routes."""
    limits = authz.tool_limits(asked.principal, asked.server)
    answers = []
    for rule, names, why in (
        ("allowed_tools", limits.allow_list, "The server’s list of allowed tools"),
        ("tool_permissions", limits.permitted, "The grant"),
    ):
        if names is None:
            answers.append(RuleAnswer(rule, Verdict.PASSES, f"{why} does not limit tools."))
        else:
            holds = tool in names
            words = f"{why} {'includes' if holds else 'does not include'} this tool."
            answers.append(RuleAnswer(rule, Verdict.PASSES if holds else Verdict.REFUSES, words))
    if asked.principal.key_id is not None:
        taken = authz.may_take_route(asked.principal, CALL_ROUTE)
        words = (
            f"The key’s routes {'allow' if taken else 'do not allow'} calling tools ({CALL_ROUTE})."
        )
        answers.append(
            RuleAnswer("allowed_routes", Verdict.PASSES if taken else Verdict.REFUSES, words)
        )
    refusal = next((answer.rule for answer in answers if answer.verdict == Verdict.REFUSES), None)
    rules = (*reached.rules, *answers)
    if not reached.allowed or refusal is None:
        return replace(reached, rules=rules)
    step = _tool_step(asked, refusal, tool)
    return Explanation(False, refusal, rules, step)


def _why(asked: _Asked, rule: Rule, verdict: Verdict) -> str:
    row = asked.server.row
    who = asked.who
    if rule is Rule.ACTIVE:
        state = {"active": "active", "pending_review": "waiting for review", "rejected": "rejected"}
        return f"The server is {state.get(row.approval_status, row.approval_status)}."
    if rule is Rule.ADDRESS:
        if row.available_on_public_internet or row.is_public:
            return "The server is available from any network."
        place = asked.principal.address or "an unknown address"
        inside = "is internal" if verdict is Verdict.PASSES else "is not internal"
        return f"The server is available only from the internal network, and {place} {inside}."
    if rule is Rule.OWNER:
        can = "can use the server" if verdict is Verdict.PASSES else "cannot use the server"
        return f"The key follows its owner, and {_owner_name(asked)} {can}."
    if rule is Rule.OPEN_TO_ALL:
        opens = "is open to all users and keys" if row.allow_all_keys else "is not open to everyone"
        return f"The server {opens}."
    if rule is Rule.ADMIN_VIEW:
        if verdict is Verdict.GRANTS:
            return f"{who} has the role {asked.principal.role.label}, which can use every server."
        if asked.principal.role.has_admin_view:
            return f"{who} belongs to an administrator, but is limited to other servers."
        return f"{who} has the role {asked.principal.role.label}, which gives no access by itself."
    return _why_granted(asked, verdict)


def _owner_name(asked: _Asked) -> str:
    return asked.names.get(("user", asked.principal.user_id or ""), asked.principal.name)


def _why_granted(asked: _Asked, verdict: Verdict) -> str:
    if verdict is Verdict.GRANTS:
        route = authz.covering_routes(asked.principal, asked.server)[0]
        return "; ".join(_covered_by(asked, level) for level in route) + "."
    if asked.principal.role.has_admin_view:
        return "Grants do not apply to administrators."
    levels = [level for route in asked.principal.routes_of_access for level in route]
    if not levels:
        return f"{asked.who} has no grants."
    missing = dict.fromkeys(_holder(asked, level) for level in levels if not _covers(asked, level))
    are = "is" if len(missing) == 1 else "are"
    return f"{' and '.join(missing)} {are} granted other servers only."


def _covers(asked: _Asked, level: Reach) -> bool:
    return level.covers(asked.server.row.server_id, asked.server.access_group_ids)


def _holder(asked: _Asked, level: Reach) -> str:
    kind = level.holder[0] if level.holder else ""
    name = asked.names.get(level.holder, "") if level.holder else ""
    if kind == "user" and asked.principal.key_id is not None:
        return _owner_name(asked)
    return {"team": f"Team {name}", "key": f"Key {asked.who}"}.get(kind, asked.who)


def _covered_by(asked: _Asked, level: Reach) -> str:
    """Describe how a level of grants includes the server."""
    server_id = asked.server.row.server_id
    holder = _holder(asked, level)
    if server_id in (level.explicit_servers or ()):
        return f"{holder} is granted the server"
    shared = level.access_group_ids & asked.server.access_group_ids
    if shared:
        query = (
            select(AccessGroup.name)
            .where(AccessGroup.access_group_id.in_(shared))
            .order_by(AccessGroup.name)
        )
        return f"{holder} is granted the access group {', '.join(asked.session.scalars(query))}"
    if level.toolset_ids:
        query = select(Toolset.toolset_name).where(Toolset.toolset_id.in_(level.toolset_ids))
        names = ", ".join(asked.session.scalars(query.order_by(Toolset.toolset_name)))
        return f"{holder} is granted tools of the server, by name or by toolset ({names})"
    return f"{holder} is granted tools of the server"


def _step(asked: _Asked, decided_by: Rule) -> NextStep:
    row = asked.server.row
    judged = asked.principal
    name = row.server_name or row.alias or row.server_id
    if decided_by is Rule.ACTIVE:
        return NextStep("open_server", f"Open {name}", row.server_id)
    if decided_by is Rule.ADDRESS:
        return NextStep("change_reach", f"Change the network access of {name}", row.server_id)
    follows = judged.is_personal or decided_by is Rule.OWNER
    if judged.key_id is None or follows:
        teams = judged.owner.team_ids if judged.owner is not None else judged.team_ids
        team = next(iter(sorted(teams, key=lambda i: asked.names.get(("team", i), i))), None)
        if team is None:
            who = _owner_name(asked) if follows else asked.who
            return NextStep("open_user", f"Grant {name} to {who}", judged.user_id)
        return NextStep(
            "open_team", f"Grant {name} to team {asked.names.get(('team', team), team)}", team
        )
    levels = [level for route in judged.routes_of_access for level in route]
    if judged.team_id and not any(level.holder and level.holder[0] == "key" for level in levels):
        # The key itself has no limit, so the team lacks the grant.
        alias = asked.names.get(("team", judged.team_id), judged.team_id)
        return NextStep("open_team", f"Grant {name} to team {alias}", judged.team_id)
    return NextStep("issue_key", f"Create a key for {name}")


def _tool_step(asked: _Asked, refusal: str, tool: str) -> NextStep:
    row = asked.server.row
    judged = asked.principal
    if refusal == "allowed_tools":
        return NextStep("edit_server", f"Allow {tool} on the server", row.server_id)
    if refusal == "allowed_routes" or (judged.key_id is not None and not judged.is_personal):
        return NextStep("issue_key", "Create a key with wider limits")
    narrow = [level for route in authz.covering_routes(judged, asked.server) for level in route]
    toolset = next((i for level in narrow for i in sorted(level.toolset_ids)), None)
    if toolset is not None:
        return NextStep("open_toolset", f"Add {tool} to the toolset", toolset)
    holder = next((level.holder for level in narrow if level.holder), None)
    if holder is not None and holder[0] == "team":
        return NextStep(
            "open_team", f"Change the tools of team {asked.names.get(holder, holder[1])}", holder[1]
        )
    who = asked.who if judged.key_id is None else _owner_name(asked)
    return NextStep("open_user", f"Change the tools of {who}", judged.user_id)


def _names(session: Session, principal: Principal, judged: Principal) -> dict[tuple[str, str], str]:
    """Return the names of the principal's teams, or those of the key's owner, and of the user."""
    teams = judged.team_ids | (judged.owner.team_ids if judged.owner is not None else frozenset())
    people = [judged.user_id] if judged.user_id is not None else []
    named = {
        ("team", i): choice.text
        for i, choice in pickers.name_teams(session, principal, teams).items()
    }
    return named | {
        ("user", i): choice.text
        for i, choice in pickers.name_people(session, principal, people).items()
    }
