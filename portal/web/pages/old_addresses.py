"""Redirects from LiteLLM dashboard URLs, which are in bookmarks and old error messages."""

from flask import Blueprint, Response, make_response, redirect, request, url_for

from portal.domain.errors import InvalidRequest, NotFound
from portal.domain.servers import check_server_id

bp = Blueprint("old_addresses", __name__)

SERVERS = "mcp-servers"
PAGES = {
    "": "grid.index",
    SERVERS: "grid.index",
    "mcp-toolsets": "toolsets.index",
    "tools": "toolsets.index",
    "api-keys": "keys.mine",
    "virtual-keys": "keys.mine",
    "llm-playground": "playground.index",
    "playground": "playground.index",
    "users": "users.list",
    "teams": "teams.list",
    "access-groups": "access_groups.list",
    "logs": "audit.events",
    "audit-logs": "audit.events",
    "settings": "settings.edit",
    "admin-panel": "settings.edit",
    "general-settings": "settings.edit",
    "api_ref": "api_docs.index",
    "api-reference": "api_docs.index",
    "mcp-hub": "hub.index",
    "model-hub": "hub.index",
    "model-hub-table": "hub.index",
}
"""LiteLLM page names, and the endpoints of the matching pages here."""


@bp.get("/ui")
@bp.get("/ui/", endpoint="start_of_dashboard")
@bp.get("/ui/<path:filename>", endpoint="page_of_dashboard")
def dashboard(filename: str = "") -> Response:
    """Redirect to the page that matches one of LiteLLM's dashboard. Raises `NotFound`.

    `?page=mcp-servers&fill_env_vars={id}` is LiteLLM's link to a user's values for a server.
    """
    name = filename.removesuffix("/").removesuffix(".html")
    wanted = request.args.get("page", "" if name == "index" else name)
    server_id = request.args.get("fill_env_vars", "")
    if server_id and wanted in ("", SERVERS):
        return _on(url_for("credentials.edit", server_id=_checked(server_id)))
    if wanted not in PAGES:
        raise NotFound("Page not found. Go to the list of servers.")
    return _on(url_for(PAGES[wanted]))


def _checked(server_id: str) -> str:
    """Return the server ID or name if it is valid in a URL. Raises `NotFound`."""
    try:
        check_server_id(server_id, is_new=False)
    except InvalidRequest:
        raise NotFound("Server not found.") from None
    if server_id in (".", ".."):  # browsers remove these from a path and open another page
        raise NotFound("Server not found.")
    return server_id


def _on(address: str) -> Response:
    return make_response(redirect(address, code=302))
