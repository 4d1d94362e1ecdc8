"""Import of servers in a single request, which imports all valid servers."""

from typing import Literal

from flask import Blueprint, Response, g, request
from pydantic import JsonValue

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import InvalidInput, TooLarge
from portal.services.catalog import imports
from portal.services.catalog.import_documents import MOST_BYTES, understand
from portal.web.api.answer_shapes import Imported
from portal.web.api.answers import answer
from portal.web.api.payloads import read_object
from portal.web.documented import Query, documented

bp = Blueprint("api_import_export", __name__, url_prefix="/v1/mcp/server")
_ANYTHING = "keep"


@bp.post("/import")
@documented(
    Imported,
    takes=dict[str, JsonValue],
    query=(Query("secrets", "How to store secrets in headers.", Literal[*imports.SHARES]),),
    example={"mcpServers": {"notes": {"type": "http", "url": "https://notes.example.com/mcp"}}},
)
def import_servers() -> Response:
    """Import servers from an `mcp.json`, a `server.json` or LiteLLM's `mcp_servers`, sent as JSON.

    `?secrets=` sets how secrets in headers are stored: `keep` (a bearer token becomes the server's
    credential), or `global` or `user` (as variables).
    """
    authz.require(g.principal, Action.SERVER_CREATE)
    if (request.content_length or 0) > MOST_BYTES:
        raise TooLarge("The document is larger than 256 KB. Split it.")
    share = imports.SHARES.get(request.args.get("secrets", _ANYTHING))
    if share is None:
        raise InvalidInput("Choose keep, global or user.", field="secrets")
    document = understand(read_object())
    outcome = imports.import_document(
        g.session, g.principal, document, imports.Choices(otherwise=share)
    )
    return answer(
        {
            "imported": [
                {"server_name": name, "server_id": server_id}
                for name, server_id in outcome.imported
            ],
            "skipped": [
                {"server_name": name, "reason": reason} for name, reason in outcome.skipped
            ],
            "errors": [{"server_name": name, "error": why} for name, _, why in outcome.errors],
        }
    )
