"""Submissions: Members submit servers and see the decisions."""

from typing import Any

from flask import Blueprint, Response, g

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Forbidden
from portal.services.servers.views import ServerView
from portal.services.submissions import submit
from portal.services.submissions.submit import OwnSubmission
from portal.web.api.answer_shapes import OwnSubmissionAnswer
from portal.web.api.answers import answer, to_json
from portal.web.api.payloads import read
from portal.web.api.submission_shapes import SubmissionBody, SubmissionChange
from portal.web.documented import documented

bp = Blueprint("api_submissions", __name__, url_prefix="/v1/mcp/server")
_EXAMPLE = {
    "server_name": "notes",
    "description": "Notes",
    "transport": "http",
    "url": "https://notes.example.com/mcp",
}


@bp.post("/register")
@documented(ServerView, takes=SubmissionBody, status=201, also=(409,), example=_EXAMPLE)
def register() -> Response:
    """Submit a server for review."""
    _require_submitter()
    sent = read(SubmissionBody).sent()
    team_id = sent.pop("team_id", None)
    return answer(submit.submit(g.session, g.principal, sent, team_id=team_id), 201)


@bp.put("/register/<server_id>")
@documented(
    OwnSubmissionAnswer,
    takes=SubmissionChange,
    also=(409,),
    example={"description": "Read and change notes"},
)
def resubmit(server_id: str) -> Response:
    """Change the caller's own submission.

    A change to a live server waits for review. Until then, the server stays as approved.
    """
    _require_submitter()
    own = submit.resubmit(g.session, g.principal, server_id, read(SubmissionChange).sent())
    return answer(_own(own))


@bp.get("/submissions/mine")
@documented(list[OwnSubmissionAnswer])
def list_own() -> Response:
    """List the caller's own submissions with the reviewers' notes."""
    return answer([_own(own) for own in submit.list_own_submissions(g.session, g.principal)])


def _require_submitter() -> None:
    if authz.may(g.principal, Action.SERVER_CREATE):
        raise Forbidden("Admins add servers with POST /v1/mcp/server, without a review.")
    authz.require(g.principal, Action.SUBMISSION_MAKE)


def _own(own: OwnSubmission) -> dict[str, Any]:
    return {**to_json(own.view), "change_submitted_at": own.change_waits}
