"""The review queue: list, approve and reject submissions."""

import dataclasses
from typing import Any, cast

from flask import Blueprint, Response, g, request

from portal import authorization as authz
from portal.authorization import Action
from portal.services.servers.views import ServerView
from portal.services.submissions import decisions, review_queue
from portal.services.submissions.review_queue import Submission
from portal.web.api.answer_shapes import SubmissionQueue
from portal.web.api.answers import answer, next_link, to_json
from portal.web.api.payloads import cursor_of, limit_of, read
from portal.web.api.submission_shapes import Approval, Rejection
from portal.web.documented import PAGED, documented

bp = Blueprint("api_review_queue", __name__, url_prefix="/v1/mcp/server")


@bp.get("/submissions")
@documented(SubmissionQueue, query=PAGED)
def list_submissions() -> Response:
    """List all submissions, newest first.

    With `limit`, the response is a page with a `Link` header to the next one.
    """
    authz.require(g.principal, Action.SUBMISSION_READ)
    after = cast(tuple[str, str] | None, cursor_of(2))
    found = review_queue.list_submissions(
        g.session, g.principal, limit=limit_of(usual=None), after=after
    )
    counts = dataclasses.asdict(found.counts)
    response = answer({**counts, "items": [_submission(item) for item in found.items]})
    if found.next_cursor is not None:
        response.headers["Link"] = next_link(found.next_cursor)
    return response


@bp.put("/<server_id>/approve")
@documented(ServerView, takes=Approval, also=(409,), example={"version": 1}, needs_body=False)
def approve(server_id: str) -> Response:
    """Approve a submission, or a proposed change to a live server. The body is optional."""
    authz.require(g.principal, Action.SUBMISSION_DECIDE)
    sent = read(Approval) if request.get_data(cache=True) else Approval()
    return answer(
        decisions.approve(
            g.session, g.principal, server_id, version=sent.version, keep=sent.keep_credentials
        )
    )


@bp.put("/<server_id>/reject")
@documented(
    ServerView, takes=Rejection, also=(409,), example={"review_notes": "Add a description."}
)
def reject(server_id: str) -> Response:
    """Reject a submission or a live server. The submitter sees the notes."""
    authz.require(g.principal, Action.SUBMISSION_DECIDE)
    sent = read(Rejection)
    decide = decisions.decline_change if sent.only_change else decisions.reject
    return answer(
        decide(g.session, g.principal, server_id, sent.review_notes, version=sent.version)
    )


def _submission(item: Submission) -> dict[str, Any]:
    return {
        **to_json(item.view),
        "submitted_team_id": item.submitted_team_id,
        "wishes": item.wishes,
        "checks": [{"field": check.field, "passes": check.passes} for check in item.checks],
        "change_waits": item.change_waits,
        "destinations": [
            {"secret": d.secret, "to": d.to, "from": d.before or None, "is_own_host": d.is_own_host}
            for d in item.destinations
        ],
        "addresses": [
            {"field": a.field, "origin": a.origin, "is_own_host": a.is_own_host}
            for a in item.addresses
        ],
    }
