"""Members' use cases: submit a server, view its status, change it and resubmit it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, false, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Conflict, Forbidden, InvalidRequest
from portal.domain.principals import OPERATOR, Principal
from portal.domain.servers import ApprovalStatus, ServerFields, Transport, check_values
from portal.domain.submissions import Step, check_required, is_given, label_of, split_wishes
from portal.services import audit
from portal.services.instance_settings import load_preferences
from portal.services.servers import kept_secrets, queries
from portal.services.servers.changes import (
    check_result,
    refuse_taken_names,
    set_names,
    with_conflicts_named,
)
from portal.services.servers.destinations import Said
from portal.services.servers.stored import Stored, stored_of
from portal.services.servers.views import ServerView, view_server, view_servers
from portal.services.submissions import change_requests
from portal.services.submissions.facts import Check, changes_between, checks_of, review_facts_of
from portal.services.submissions.history import note_step
from portal.store.models import Proposal, Server, Team, new_id, now


@dataclass(frozen=True)
class OwnSubmission:
    """A submission of the caller; `change_waits` is when a change was proposed, if any."""

    view: ServerView
    change_waits: datetime | None = None


def submit(
    session: Session, principal: Principal, sent: Mapping[str, Any], *, team_id: str | None = None
) -> ServerView:
    """Submit a server for a team: the key's, the chosen one, or the user's only one.

    Raises `InvalidRequest` for no team, for stdio and for missing required fields, what the rules
    of a definition raise, and `Conflict` for a taken name. Values that only Admins can set are
    stored as wishes.
    """
    _require_submitter(principal)
    team = _team(principal, team_id)
    fields, wishes = split_wishes(sent)
    fields = kept_secrets.settled(session, principal, None, fields)
    _refuse_stdio(fields)
    check_required(load_preferences(session).mcp_required_fields, sent)
    check_values(fields)
    author = _author(principal)
    transport = fields.get("transport") or Transport.SSE
    row = Server(
        server_id=new_id(),
        transport=transport.value,
        created_by=author,
        updated_by=author,
        submitted_by=author,
        submitted_team_id=team,
        submitted_at=now(),
        wishes=wishes or None,
        approval_status=ApprovalStatus.PENDING_REVIEW.value,
    )
    set_names(row, fields)
    check_result(session, row, fields)
    refuse_taken_names(session, row)
    with_conflicts_named(session, row, fields, Said())
    note_step(session, row, author, Step.SUBMITTED, review_facts_of(session, row))
    audit.record(
        session,
        principal,
        "server submitted",
        "server",
        row.server_id,
        name=row.server_name,
        team_id=team,
    )
    session.flush()
    return view_server(session, principal, row)


def resubmit(
    session: Session, principal: Principal, server_id: str, sent: Mapping[str, Any]
) -> OwnSubmission:
    """Change the given fields of the caller's submission, which then waits for review again.

    A live server stays as approved: the change is stored as a proposal until an Admin decides.
    Raises `Forbidden` for servers that the caller did not submit, existing or not, and what
    `submit` raises.
    """
    _require_submitter(principal)
    row = _own(session, principal, server_id, lock=True)
    version = sent.get("version")
    if version is not None and version != row.version:
        raise Conflict(
            "This submission was changed by someone else. Reload it and try again.",
            code="stale_version",
            field="version",
            current_version=row.version,
        )
    fields, wishes = split_wishes(
        {name: value for name, value in sent.items() if name != "version"}
    )
    check_values(kept_secrets.without_masks(fields))
    fields = kept_secrets.settled(session, principal, row, fields)
    author = _author(principal)
    if row.approval_status == ApprovalStatus.ACTIVE:
        _refuse_emptied(session, row, principal, fields)
        facts = change_requests.propose(session, principal, row, fields, author)
        note_step(session, row, author, Step.PROPOSED, facts)
        audit.record(
            session,
            principal,
            "server change proposed",
            "server",
            row.server_id,
            name=row.server_name,
            fields=sorted(fields),
        )
    else:
        change_requests.rewrite_waiting(session, principal, row, fields)
        _require_all(session, row)
        row.wishes = {**(row.wishes or {}), **wishes} or None
        row.approval_status, row.submitted_at = ApprovalStatus.PENDING_REVIEW.value, now()
        row.updated_by, row.updated_at = author, now()
        note_step(session, row, author, Step.RESUBMITTED, review_facts_of(session, row))
        audit.record(
            session,
            principal,
            "server resubmitted",
            "server",
            row.server_id,
            name=row.server_name,
            fields=sorted(fields),
        )
    row.version += 1
    session.flush()
    return _seen(session, principal, [row])[0]


def list_own_submissions(session: Session, principal: Principal) -> list[OwnSubmission]:
    """Return the caller's submissions with the reviewers' notes, newest first; at most 500."""
    authz.require(principal, Action.SUBMISSION_MAKE)
    query = (
        select(Server)
        .where(_is_own(principal))
        .order_by(Server.submitted_at.desc(), Server.server_id)
        .limit(500)
    )
    return _seen(session, principal, list(session.scalars(query)))


def get_own_submission(
    session: Session, principal: Principal, server_id: str
) -> tuple[OwnSubmission, Stored]:
    """Return one of the caller's submissions, and the data its form starts from.

    Origins are included only while nobody but the submitter has changed the server. Raises
    `Forbidden` for any other server.
    """
    _require_submitter(principal)
    row = _own(session, principal, server_id)
    stored = stored_of(session, OPERATOR, row)
    if row.updated_by != row.submitted_by:
        stored = replace(stored, origins=dict.fromkeys(stored.origins, ""))
    return _seen(session, principal, [row])[0], stored


def list_required(
    session: Session, principal: Principal, sent: Mapping[str, Any]
) -> tuple[Check, ...]:
    """Return the fields that submissions must fill in, and whether `sent` does."""
    authz.require(principal, Action.SUBMISSION_MAKE)
    names = load_preferences(session).mcp_required_fields
    return tuple(Check(name, label_of(name), is_given(name, sent.get(name))) for name in names)


def list_submitter_teams(session: Session, principal: Principal) -> list[tuple[str, str]]:
    """Return the ids and names of the teams that the caller can submit for."""
    authz.require(principal, Action.SUBMISSION_MAKE)
    rows = session.execute(
        select(Team.team_id, Team.team_alias)
        .where(Team.team_id.in_(principal.team_ids))
        .order_by(Team.team_alias)
    )
    return [(team_id, alias) for team_id, alias in rows]


def _require_submitter(principal: Principal) -> None:
    if authz.may(principal, Action.SERVER_CREATE):
        raise Forbidden("Admins add servers with POST /v1/mcp/server; they need no review.")
    authz.require(principal, Action.SUBMISSION_MAKE)


def _author(principal: Principal) -> str:
    """Return the submitter: the user, or the team of a team key."""
    return principal.user_id or principal.team_id or principal.name


def _is_own(principal: Principal) -> ColumnElement[bool]:
    if principal.user_id is not None:
        return Server.submitted_by == principal.user_id
    if principal.team_id is None:
        return false()
    return and_(
        Server.submitted_by == principal.team_id, Server.submitted_team_id == principal.team_id
    )


def _own(session: Session, principal: Principal, reference: str, *, lock: bool = False) -> Server:
    """Return the caller's submission with this id, name or alias."""
    query = (
        select(Server)
        .where(queries.is_called(reference), _is_own(principal))
        .options(*queries.PARTS)
    )
    query = query.order_by((Server.server_id == reference).desc()).limit(1)
    row = session.scalar(query.with_for_update(of=Server) if lock else query)
    if row is None:
        raise Forbidden("You have no such submission.")
    return row


def _team(principal: Principal, team_id: str | None) -> str:
    teams = principal.team_ids
    if not teams:
        raise InvalidRequest(
            "Only team members can submit servers. Ask an Admin to add you to a team.",
            code="no_team",
        )
    if team_id is None and len(teams) > 1:
        raise InvalidRequest(
            "You are in several teams. Choose which one submits the server.",
            code="no_team",
            field="team_id",
        )
    if team_id is not None and team_id not in teams:
        raise InvalidRequest("You are not a member of this team.", code="no_team", field="team_id")
    return team_id or next(iter(teams))


def _refuse_stdio(fields: ServerFields) -> None:
    if fields.get("transport") == Transport.STDIO:
        raise InvalidRequest(
            "Only Admins can add servers that run a command. Ask an Admin to add yours.",
            code="stdio_not_allowed",
            field="transport",
        )


def _require_all(session: Session, row: Server) -> None:
    """Check the required fields on the row as it is after a change."""
    names = load_preferences(session).mcp_required_fields
    check_required(
        names, {check.field: "given" if check.passes else None for check in checks_of(names, row)}
    )


def _refuse_emptied(
    session: Session, row: Server, principal: Principal, fields: ServerFields
) -> None:
    with change_requests.as_if_changed(session, principal, row, fields):
        _require_all(session, row)
        after = review_facts_of(session, row)
    headers = any(
        name in fields for name in ("static_headers", "env", "env_vars", "credentials", "mcp_info")
    )
    if not headers and not changes_between(review_facts_of(session, row), after):
        raise InvalidRequest(
            "This is the same as the approved version.", field=next(iter(fields), None)
        )


def _seen(session: Session, principal: Principal, rows: list[Server]) -> list[OwnSubmission]:
    ids = [row.server_id for row in rows]
    waits = select(Proposal.server_id, Proposal.submitted_at).where(Proposal.server_id.in_(ids))
    waiting = dict(session.execute(waits).all())
    return [
        OwnSubmission(view, waiting.get(view.server_id))
        for view in view_servers(session, principal, rows)
    ]
