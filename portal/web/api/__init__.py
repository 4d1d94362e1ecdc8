"""The JSON API: MCP servers in LiteLLM's wire format, and users, teams, keys and settings."""

from flask import Flask

from portal.web.api import (
    access_groups,
    audit,
    connections,
    credentials,
    discover,
    document,
    drafts,
    explain,
    import_export,
    keys,
    me,
    oauth_check,
    openapi,
    registry,
    review_queue,
    servers,
    settings,
    submissions,
    teams,
    tool_changes,
    tools,
    toolsets,
    users,
)


def register(app: Flask) -> None:
    """Register the API blueprints."""
    for module in (
        servers,
        connections,
        credentials,
        tools,
        toolsets,
        users,
        teams,
        keys,
        access_groups,
        settings,
        me,
        explain,
        registry,
        import_export,
        audit,
        submissions,
        review_queue,
        tool_changes,
        discover,
        openapi,
        document,
        oauth_check,
        drafts,
    ):
        app.register_blueprint(module.bp)
