"""The OAuth callback of a server form that is not saved yet."""

from flask import Response, g, url_for

from portal.services.drafts import sign_in
from portal.services.oauth_client.flows import Flow
from portal.web.context import known_person
from portal.web.pages.accounts import own_path
from portal.web.rendering import see_other


def came_back(flow: Flow, answer: dict[str, str]) -> Response:
    """Store the token if the same user is signed in as at the start, and return to the form."""
    back = str(flow.contents.get("back") or url_for("servers.create"))
    person = known_person()
    if person is not None and person.user_id == flow.user_id:
        sign_in.complete_draft_connection(g.session, person, flow, answer)
    return see_other(own_path(back))
