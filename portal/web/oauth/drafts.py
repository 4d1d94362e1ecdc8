"""The way back to the form of a server that is not saved yet."""

from flask import Response, g, url_for

from portal.services.drafts import sign_in
from portal.services.oauth_client.flows import Flow
from portal.web.context import known_person
from portal.web.pages.accounts import own_path
from portal.web.rendering import see_other


def came_back(flow: Flow, answer: dict[str, str]) -> Response:
    """Take the token, if who comes back is who left, and go on in the form; it says what became of
    it."""
    back = str(flow.contents.get("back") or url_for("servers.create"))
    person = known_person()
    if person is not None and person.user_id == flow.user_id:
        sign_in.complete(g.session, person, flow, answer)
    return see_other(own_path(back))
