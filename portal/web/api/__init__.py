"""The JSON door: LiteLLM's wire format for MCP servers, and people, keys and settings beside it."""

from flask import Flask

from portal.web.api.credentials import bp as credentials
from portal.web.api.groups import bp as groups
from portal.web.api.keys import bp as keys
from portal.web.api.me import bp as me
from portal.web.api.servers import bp as servers
from portal.web.api.settings import bp as settings
from portal.web.api.submissions import bp as submissions
from portal.web.api.teams import bp as teams
from portal.web.api.tools import bp as tools
from portal.web.api.users import bp as users


def register(app: Flask) -> None:
    """Hang every part of the API on the application."""
    for blueprint in (servers, credentials, tools, users, teams, keys, groups, settings, me, submissions):
        app.register_blueprint(blueprint)
