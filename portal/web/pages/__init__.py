"""The door for people: pages, and the pieces of them that htmx asks for."""

from flask import Flask, Response, url_for

from portal.web.pages import accounts, credentials, editing, keys, people, playground, servers
from portal.web.rendering import see_other


def register(app: Flask) -> None:
    """The list of page blueprints."""
    for module in (accounts, servers, editing, credentials, playground, people, keys):
        app.register_blueprint(module.bp)

    @app.get("/")
    def start() -> Response:
        return see_other(url_for("servers.grid"))
