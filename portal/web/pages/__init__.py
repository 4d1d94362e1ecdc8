"""The door for people: pages, and the pieces of them that htmx asks for."""

from flask import Flask, Response, url_for

from portal.web.pages import accounts, credentials, keys, people, playground, servers, submissions
from portal.web.pages import editing as _the_other_half_of_servers  # noqa: F401 - hangs its handlers on servers.bp
from portal.web.pages import groups as _of_people  # noqa: F401 - hangs its handlers on people.bp
from portal.web.pages import reviewing as _the_other_half_of_submissions  # noqa: F401 - on submissions.bp
from portal.web.pages import teams as _also_of_people  # noqa: F401 - likewise
from portal.web.rendering import see_other


def register(app: Flask) -> None:
    """The list of page blueprints."""
    for blueprint in (accounts.bp, servers.bp, credentials.bp, playground.bp, people.bp, keys.bp, submissions.bp):
        app.register_blueprint(blueprint)

    @app.get("/")
    def start() -> Response:
        return see_other(url_for("servers.grid"))
