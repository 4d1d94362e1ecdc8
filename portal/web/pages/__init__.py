"""The HTML pages, and the fragments of them that htmx requests."""

from flask import Flask, Response, url_for

from portal.web.pages import access_groups as _of_people  # noqa: F401 - adds its routes to people.bp
from portal.web.pages import (
    accounts,
    api_docs,
    audit,
    credentials,
    discover,
    hub,
    import_export,
    keys,
    old_addresses,
    openapi,
    playground,
    servers,
    settings,
    submissions,
    toolsets,
    users,
)
from portal.web.pages import editing as _the_other_half_of_servers  # noqa: F401 - adds its routes to servers.bp
from portal.web.pages import explain as _explained_to_people  # noqa: F401 - adds its routes to people.bp
from portal.web.pages import oauth_check as _the_doctor_of_servers  # noqa: F401 - adds its routes to servers.bp
from portal.web.pages import review_queue as _the_other_half_of_submissions  # noqa: F401 - on submissions.bp
from portal.web.pages import server_tools as _a_third_of_servers  # noqa: F401 - adds its routes to servers.bp
from portal.web.pages import teams as _also_of_people  # noqa: F401 - adds its routes to people.bp
from portal.web.pages import tool_changes as _also_of_servers  # noqa: F401 - on servers.bp
from portal.web.rendering import see_other


def register(app: Flask) -> None:
    """Register the page blueprints and the start page."""
    for module in (
        accounts,
        servers,
        credentials,
        playground,
        users,
        keys,
        toolsets,
        import_export,
        hub,
        audit,
        settings,
        submissions,
        discover,
        openapi,
        api_docs,
        old_addresses,
    ):
        app.register_blueprint(module.bp)

    @app.get("/")
    def start() -> Response:
        return see_other(url_for("servers.grid"))
