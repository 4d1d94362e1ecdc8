"""Decisions about submissions, and probing their tools. `review_queue.py` reads the queue."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Conflict, InvalidRequest, LookOnly, PortalError
from portal.domain.principals import Principal
from portal.domain.servers import ApprovalStatus
from portal.domain.submissions import Step
from portal.domain.upstream import ProbeResult, Target
from portal.services import audit
from portal.services.runtime import runtime_of
from portal.services.secrets.server_definition import opened, route_of
from portal.services.servers import destinations, queries, tool_snapshots
from portal.services.servers.views import ServerView, view_server
from portal.services.submissions import change_requests
from portal.services.submissions.facts import review_facts_of
from portal.services.submissions.history import note_step, why_not_approve
from portal.store.database import release
from portal.store.models import ApiKey, Grant, Proposal, Server, Team, User, now

_PROBE_SECONDS = 15.0
_NOTHING_SAID: Mapping[str, bool] = MappingProxyType({})


@dataclass(frozen=True)
class Refused:
    """A decision in a batch that was not possible."""

    server_id: str
    message: str


def approve(
    session: Session,
    principal: Principal,
    server_id: str,
    *,
    version: int | None = None,
    keep: bool | None = None,
) -> ServerView:
    """Approve a submission or a proposed change, and grant the server to the submitter's team.

    Raises `InvalidRequest` (`already_active`) if it is already approved, `Conflict`
    (`stale_version`) if it changed since the reviewer saw it at `version`, and `Conflict`
    (`credentials_would_move`) if stored secrets would move and `keep` does not say whether to send
    or delete them.
    """
    authz.require(principal, Action.SUBMISSION_DECIDE)
    row = queries.find_server(
        session, principal, server_id, Action.SUBMISSION_DECIDE, lock=True
    ).row
    proposal = session.get(Proposal, row.server_id)
    if row.approval_status == ApprovalStatus.ACTIVE and proposal is None:
        raise InvalidRequest(
            f"{_name(row)} is already active.", code="already_active", field="server_id"
        )
    author = proposal.submitted_by if proposal is not None else row.submitted_by
    why_not = why_not_approve(session, principal, author)
    if why_not:
        raise LookOnly(f"{_name(row)}: {why_not}")
    _check_version(row, version)
    tools = tool_snapshots.accept_probed(session, principal, row)
    if row.transport == "stdio":
        authz.require(principal, Action.COMMAND_MANAGE)
    changed: list[str] = []
    if proposal is not None:
        fields = change_requests.proposed_fields(session, row, proposal)
        change_requests.write_change(session, principal, row, fields, keep=keep)
        row.updated_by, row.updated_at = proposal.submitted_by, now()
        session.delete(proposal)
        changed = sorted(fields)
    else:
        destinations.refuse_mixed(row, route_of(session, row))
        row.probe_due_at, row.probe_failures = now(), 0
    row.approval_status = ApprovalStatus.ACTIVE.value
    _decided(session, principal, row)
    note_step(
        session,
        row,
        principal.signature,
        Step.APPROVED,
        {**review_facts_of(session, row), "tools": tools},
    )
    audit.record(
        session,
        principal,
        "server approved",
        "server",
        row.server_id,
        name=row.server_name,
        changed=changed,
        tools=len(tools),
        **_own_submission(principal, author),
    )
    _grant_submitter(session, principal, row)
    session.flush()
    return view_server(session, principal, row)


def reject(
    session: Session,
    principal: Principal,
    server_id: str,
    notes: str | None,
    *,
    version: int | None = None,
) -> ServerView:
    """Reject a server. A live one is no longer served, and a waiting change is dropped.

    Raises `InvalidRequest` (`already_rejected`) and `Conflict` (`stale_version`) as `approve` does.
    """
    authz.require(principal, Action.SUBMISSION_DECIDE)
    row = queries.find_server(
        session, principal, server_id, Action.SUBMISSION_DECIDE, lock=True
    ).row
    if row.approval_status == ApprovalStatus.REJECTED:
        raise InvalidRequest(
            f"{_name(row)} is already rejected.", code="already_rejected", field="server_id"
        )
    _check_version(row, version)
    proposal = session.get(Proposal, row.server_id)
    if proposal is not None:
        session.delete(proposal)
    was_live = row.approval_status == ApprovalStatus.ACTIVE
    row.approval_status = ApprovalStatus.REJECTED.value
    row.review_notes = (notes or "").strip() or None
    _decided(session, principal, row)
    note_step(
        session,
        row,
        principal.signature,
        Step.REJECTED,
        review_facts_of(session, row),
        row.review_notes,
    )
    audit.record(
        session,
        principal,
        "server rejected",
        "server",
        row.server_id,
        name=row.server_name,
        was_live=was_live,
        has_notes=row.review_notes is not None,
    )
    session.flush()
    return view_server(session, principal, row)


def decline_change(
    session: Session,
    principal: Principal,
    server_id: str,
    notes: str | None,
    *,
    version: int | None = None,
) -> ServerView:
    """Decline the change proposed for a live server, which stays as approved."""
    authz.require(principal, Action.SUBMISSION_DECIDE)
    row = queries.find_server(
        session, principal, server_id, Action.SUBMISSION_DECIDE, lock=True
    ).row
    proposal = session.get(Proposal, row.server_id)
    if proposal is None:
        raise Conflict(f"No change to {_name(row)} is waiting for review.", field="server_id")
    _check_version(row, version)
    session.delete(proposal)
    row.review_notes = (notes or "").strip() or None
    _decided(session, principal, row)
    note_step(
        session,
        row,
        principal.signature,
        Step.DECLINED,
        review_facts_of(session, row),
        row.review_notes,
    )
    audit.record(
        session, principal, "server change declined", "server", row.server_id, name=row.server_name
    )
    session.flush()
    return view_server(session, principal, row)


def decide_all(
    session: Session,
    principal: Principal,
    verdict: Step,
    chosen: Mapping[str, int | None],
    notes: str | None,
    *,
    keep: Mapping[str, bool] = _NOTHING_SAID,
) -> tuple[list[str], list[Refused]]:
    """Decide about several servers, each in its own savepoint.

    Returns the names of those that succeeded, and the errors of the others. `chosen` are versions
    by server id, `keep` the decisions about secrets that an approved change would move. Servers are
    locked in the order of their ids, to prevent deadlocks.
    """
    authz.require(principal, Action.SUBMISSION_DECIDE)
    done: list[str] = []
    refused: list[Refused] = []
    for server_id in sorted(chosen):
        try:
            with session.begin_nested():
                view = _one(
                    session,
                    principal,
                    verdict,
                    server_id,
                    chosen[server_id],
                    notes,
                    keep.get(server_id),
                )
            done.append(view.server_name or view.server_id)
        except PortalError as error:
            refused.append(Refused(server_id, error.message))
    return done, refused


def probe_submission(session: Session, principal: Principal, server_id: str) -> ProbeResult:
    """Connect to a submitted server and list its tools, using no stored header, key or value.

    The result is stored with the version of the submission; approving that version accepts these
    tool definitions.
    """
    authz.require(principal, Action.SUBMISSION_DECIDE)
    row = queries.find_server(session, principal, server_id, Action.SUBMISSION_DECIDE).row
    target = _bare_target(session, row)
    subject = tool_snapshots.subject_of(row)
    release(session)
    result = runtime_of(session).mcp.probe(target, with_tools=True, timeout=_PROBE_SECONDS)
    if result.tools is not None:
        tool_snapshots.remember_probe(
            session, principal, subject, tool_snapshots.entries_of(result.tools)
        )
        session.commit()
    return result


def _one(
    session: Session,
    principal: Principal,
    verdict: Step,
    server_id: str,
    version: int | None,
    notes: str | None,
    keep: bool | None,
) -> ServerView:
    if verdict is Step.APPROVED:
        return approve(session, principal, server_id, version=version, keep=keep)
    if verdict is Step.DECLINED:
        return decline_change(session, principal, server_id, notes, version=version)
    return reject(session, principal, server_id, notes, version=version)


def _bare_target(session: Session, row: Server) -> Target:
    if row.transport == "stdio":
        raise InvalidRequest(
            "The portal does not run commands to preview a submission.", code="stdio_not_allowed"
        )
    proposal = session.get(Proposal, row.server_id)
    if proposal is None:
        return _target(row, opened(session, row).urls)
    fields = change_requests.proposed_fields(session, row, proposal)
    copy = destinations.copy_of(row)
    destinations.write_definition(
        session, copy, destinations.copied(fields), destinations.Said(keep=False, trial=True)
    )
    return _target(copy, opened(session, copy).urls)


def _target(row: Server, urls: Mapping[str, str]) -> Target:
    return Target(
        transport="http" if row.transport == "http" else "sse",
        url=urls.get("url", ""),
        spec_url=urls.get("spec_path", ""),
        command="",
        args=(),
        env={},
        headers={},
        timeout=min(row.timeout or _PROBE_SECONDS, _PROBE_SECONDS),
    )


def _own_submission(principal: Principal, author: str | None) -> dict[str, Any]:
    """Return the audit detail for an Admin who approves their own submission."""
    is_own = principal.user_id is not None and principal.user_id == author
    return {"own_submission": "There was no other Admin."} if is_own else {}


def _check_version(row: Server, version: int | None) -> None:
    if version is not None and version != row.version:
        raise Conflict(
            f"{_name(row)} was changed while you were reviewing it. Review it again.",
            code="stale_version",
            field="version",
            current_version=row.version,
        )


def _decided(session: Session, principal: Principal, row: Server) -> None:
    row.reviewed_by, row.reviewed_at = principal.signature, now()
    row.version += 1
    session.flush()


def _grant_submitter(session: Session, principal: Principal, row: Server) -> None:
    """Grant the server to the submitter's team.

    A team without grants does not limit its keys. Its first grant would leave keys that name their
    own servers without access. In that case the server is granted to the submitter instead.
    """
    team_id = row.submitted_team_id
    team = session.get(Team, team_id) if team_id is not None else None
    if team_id is None or team is None:
        return
    holder = ("team", team_id)
    name = team.team_alias
    held = select(Grant.grant_id).where(Grant.holder_kind == "team", Grant.holder_id == team_id)
    has_grants = session.scalar(held.limit(1)) is not None
    if not has_grants and session.scalar(_keys_with_limits(team_id)) is not None:
        person = session.get(User, row.submitted_by) if row.submitted_by is not None else None
        if person is None:
            return
        holder = ("user", person.user_id)
        name = person.email or person.user_id
    mine = select(Grant.grant_id).where(
        Grant.holder_kind == holder[0],
        Grant.holder_id == holder[1],
        Grant.kind == "server",
        Grant.server_id == row.server_id,
    )
    if session.scalar(mine.limit(1)) is not None:
        return
    session.add(
        Grant(holder_kind=holder[0], holder_id=holder[1], kind="server", server_id=row.server_id)
    )
    audit.record(session, principal, "server granted", *holder, name=name, server_id=row.server_id)


def _keys_with_limits(team_id: str) -> Select[str]:
    kinds = ("server", "access_group", "tools")
    limited = select(Grant.holder_id).where(Grant.holder_kind == "key", Grant.kind.in_(kinds))
    return (
        select(ApiKey.key_id)
        .where(ApiKey.team_id == team_id, ApiKey.revoked_at.is_(None), ApiKey.key_id.in_(limited))
        .limit(1)
    )


def _name(row: Server) -> str:
    return row.server_name or row.alias or row.server_id
