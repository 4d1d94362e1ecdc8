"""The review queue: view, test, approve and reject submissions, one or several at once."""

from flask import Blueprint, Response, flash, g, request, url_for

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import NotFound
from portal.domain.submissions import Step
from portal.services.submissions import decisions, review_queue
from portal.services.upstreams.connection_test import Trial
from portal.web.context import may_change, reads_only
from portal.web.forms.review_queue import DecisionForm
from portal.web.limits import TRY_UPSTREAM, limiter
from portal.web.pages.servers.trials import result_of
from portal.web.rendering import page, see_other

bp = Blueprint("review_queue", __name__, url_prefix="/admin/submissions")
_VERDICTS = {"approve": Step.APPROVED, "reject": Step.REJECTED, "decline": Step.DECLINED}
_DONE = {"approve": "approved", "reject": "rejected", "decline": "change declined"}
STATUSES = (("waiting", "Waiting for review"), ("active", "Active"), ("rejected", "Rejected"))


@bp.get("", endpoint="list")
def list_submissions() -> Response:
    """List submissions, newest first, filtered by name or host and by status."""
    q = request.args.get("q", "")[:200]
    status = request.args.get("status", "")
    cursor = request.args.get("cursor", "")[:300]
    found = review_queue.get_queue(g.session, g.principal, q=q, status=status, cursor=cursor)
    next_url = (
        url_for("review_queue.list", q=q or None, status=status or None, cursor=found.next_cursor)
        if found.next_cursor
        else ""
    )
    return page(
        "review_queue/list.html",
        fragment="results",
        nav="review_queue",
        queue=found,
        q=q,
        status_filter=status,
        statuses=STATUSES,
        cursor=cursor,
        next_url=next_url,
    )


@bp.get("/<server_id>")
def review(server_id: str) -> Response:
    """Show one submission with its history."""
    found, history = review_queue.get_review(g.session, g.principal, server_id)
    return page("review_queue/review.html", nav="review_queue", review=found, history=history)


@bp.post("/<server_id>/probe")
@limiter.limit(TRY_UPSTREAM)
@reads_only
def probe(server_id: str) -> Response:
    """List the tools of the proposed server. Only its stored URL is used, no credentials."""
    authz.require(g.principal, Action.SUBMISSION_READ)
    may_change(Action.SUBMISSION_DECIDE)
    result = result_of(Trial(decisions.probe_submission(g.session, g.principal, server_id)))
    return page(
        "review_queue/probe.html",
        fragment="probe",
        nav="review_queue",
        result=result,
        server_id=server_id,
    )


@bp.route("/decide", methods=["GET", "POST"])
def decide() -> Response:
    """Ask for confirmation and notes, then apply the decision."""
    authz.require(g.principal, Action.SUBMISSION_DECIDE)
    verdict = request.values.get("verdict", "")
    ids = list(dict.fromkeys(request.values.getlist("chosen")))
    reviews = review_queue.list_reviews(g.session, g.principal, ids)
    if verdict not in _VERDICTS or (ids and not reviews):
        raise NotFound("Submission not found, or the decision is not valid.")
    form = DecisionForm()
    sent = bool(reviews) and form.sent()
    if sent and not _knows_all_words(ids):
        form.form_errors.append("Not a valid choice. No decision was saved. Choose again.")
    elif sent:
        return _decided(verdict, reviews, form.notes.data or None)
    return page(
        "review_queue/decide.html",
        fragment="decision",
        status=form.status,
        nav="review_queue",
        verdict=verdict,
        reviews=reviews,
        form=form,
    )


def _decided(
    verdict: str, reviews: tuple[review_queue.ReviewView, ...], notes: str | None
) -> Response:
    ids = [review.server_id for review in reviews]
    chosen = {server_id: _version_seen(server_id) for server_id in ids}
    said = {server_id: request.form.get(f"keep-{server_id}", "") for server_id in ids}
    keep = {
        server_id: word == "keep" for server_id, word in said.items() if word in ("keep", "forget")
    }
    done, refused = decisions.decide_all(
        g.session, g.principal, _VERDICTS[verdict], chosen, notes, keep=keep
    )
    if done:
        others = " and others" if len(done) > 5 else ""
        flash(
            f"{', '.join(done[:5])}{others}: {_DONE[verdict]}.",
            "success",
        )
    for refusal in refused[:5]:
        flash(refusal.message, "error")
    return see_other(url_for("review_queue.list", status="waiting"))


def _knows_all_words(ids: list[str]) -> bool:
    """Return whether the choice and version sent for each server are valid."""
    keeps = all(
        request.form.get(f"keep-{server_id}", "") in ("", "keep", "forget") for server_id in ids
    )
    versions = [request.form.get(f"version-{server_id}", "") for server_id in ids]
    return keeps and all(not text or (text.isascii() and text.isdigit()) for text in versions)


def _version_seen(server_id: str) -> int | None:
    text = request.form.get(f"version-{server_id}", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
