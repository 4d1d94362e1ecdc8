"""OAuth endpoints for MCP clients that run in a browser, as scripts of another origin.

Metadata is public, so every origin may read it. The other endpoints answer the origins of
`PORTAL_GATEWAY_ORIGINS`. No endpoint allows cookies.
"""

from flask import Flask, Response, request

from portal.domain import cross_origin
from portal.settings import Settings
from portal.web.request_auth import marks

_OAUTH = frozenset({"oauth_server.token", "oauth_server.revoke"})
_WITH_PREFIX = ("oauth_metadata.register", "oauth_broker.token")


def init_app(app: Flask, settings: Settings) -> None:
    """Add the headers to responses, and answer preflight requests."""
    listed = frozenset(settings.gateway_origins)

    @app.after_request
    def _let_scripts_read(response: Response) -> Response:
        endpoint = request.endpoint or ""
        is_document = marks().get("speaks") == "document"
        if not is_document and not (endpoint in _OAUTH or endpoint.startswith(_WITH_PREFIX)):
            return response
        origin = request.headers.get("Origin", "")
        if is_document:
            origin = "*"
        elif origin not in listed:
            return response
        headers = _headers(origin)
        response.vary.update(headers.pop("vary", "").split(", "))
        response.headers.update(headers)
        return response


def _headers(origin: str) -> dict[str, str]:
    is_preflight = "Access-Control-Request-Method" in request.headers
    if request.method != "OPTIONS" or not is_preflight:
        return cross_origin.answer_headers(origin)
    methods = ["GET"] if origin == "*" else ["POST"]
    requested = request.headers.get("Access-Control-Request-Headers", "")
    return cross_origin.preflight_headers(origin, methods, requested)
