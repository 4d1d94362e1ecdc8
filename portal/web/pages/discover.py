"""The catalog of well-known MCP servers."""

from flask import Blueprint, Response, g, request

from portal.domain.servers import Transport
from portal.services.catalog import discover
from portal.web.rendering import page

bp = Blueprint("discover", __name__, url_prefix="/servers")
_TRANSPORTS = (("http", "Streamable HTTP"), ("sse", "SSE"), ("stdio", "Command on this host"))


@bp.get("/discover")
def index() -> Response:
    """List well-known servers by category. The filters are in the URL."""
    asked = {name: request.args.get(name, "")[:200] for name in ("q", "category", "transport")}
    found = discover.list_catalog(
        g.session,
        g.principal,
        query=asked["q"],
        category=asked["category"],
        transport=asked["transport"],
    )
    return page(
        "discover/index.html",
        fragment="results",
        nav="discover",
        found=found,
        asked=asked,
        transports=_TRANSPORTS,
        categories=[(name, name) for name in found.categories],
        added=discover.find_added(g.session, g.principal, found.servers),
        blocked={
            entry.name: why
            for entry in found.servers
            if (why := discover.why_not(g.session, g.principal, entry))
        },
        labels={
            transport.value: text
            for transport, text in ((Transport(value), text) for value, text in _TRANSPORTS)
        },
    )
