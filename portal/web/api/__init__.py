"""The JSON API: MCP servers in LiteLLM's wire format, and users, teams, keys and settings."""

from flask import Flask

from portal.web.api.access_groups import bp as groups
from portal.web.api.audit import bp as audit
from portal.web.api.connections import bp as connections
from portal.web.api.credentials import bp as credentials
from portal.web.api.discover import bp as catalog
from portal.web.api.document import bp as document
from portal.web.api.explain import bp as access
from portal.web.api.import_export import bp as exchange
from portal.web.api.keys import bp as keys
from portal.web.api.me import bp as me
from portal.web.api.oauth_check import bp as oauth_check
from portal.web.api.registry import bp as registry
from portal.web.api.servers import bp as servers
from portal.web.api.settings import bp as settings
from portal.web.api.submissions import bp as submissions
from portal.web.api.teams import bp as teams
from portal.web.api.temporary import bp as temporary
from portal.web.api.tool_changes import bp as tool_changes
from portal.web.api.tools import bp as tools
from portal.web.api.toolsets import bp as toolsets
from portal.web.api.users import bp as users

_BLUEPRINTS = (
    servers,
    connections,
    credentials,
    tools,
    toolsets,
    users,
    teams,
    keys,
    groups,
    settings,
    me,
    access,
    registry,
    exchange,
    audit,
    submissions,
    tool_changes,
    catalog,
    document,
    oauth_check,
    temporary,
)


def register(app: Flask) -> None:
    """Register the API blueprints."""
    for blueprint in _BLUEPRINTS:
        app.register_blueprint(blueprint)
