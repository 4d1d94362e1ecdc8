"""The door for people: pages, and the pieces of them that htmx asks for."""

from flask import Flask, Response, url_for

from portal.web.pages import accounts, credentials, editing, keys, people, playground, servers
from portal.web.rendering import see_other


def register(app: Flask) -> None:
    """The list of page blueprints."""
    assert editing.bp is servers.bp  # the other half of the servers' pages, in a file of its own
    for blueprint in (accounts.bp, servers.bp, credentials.bp, playground.bp, people.bp, keys.bp):
        app.register_blueprint(blueprint)

    @app.get("/")
    def start() -> Response:
        return see_other(url_for("servers.grid"))
