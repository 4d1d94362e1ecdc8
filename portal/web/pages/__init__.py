"""The HTML pages, and the fragments of them that htmx requests."""

from flask import Flask, Response, url_for

from portal.web.pages import (
    access_groups,
    accounts,
    api_docs,
    audit,
    credentials,
    discover,
    explain,
    hub,
    import_export,
    keys,
    old_addresses,
    openapi,
    pickers,
    playground,
    registry,
    review_queue,
    settings,
    submissions,
    teams,
    toolsets,
    users,
)
from portal.web.pages.servers import grid, health, oauth_check, server_tools, servers, tool_changes
from portal.web.rendering import see_other


def register(app: Flask) -> None:
    """Register the page blueprints and the start page."""
    for module in (
        accounts,
        grid,
        servers,
        server_tools,
        tool_changes,
        oauth_check,
        health,
        credentials,
        playground,
        users,
        teams,
        access_groups,
        explain,
        pickers,
        keys,
        toolsets,
        import_export,
        registry,
        hub,
        audit,
        settings,
        submissions,
        review_queue,
        discover,
        openapi,
        api_docs,
        old_addresses,
    ):
        app.register_blueprint(module.bp)

    @app.get("/")
    def start() -> Response:
        return see_other(url_for("grid.index"))
