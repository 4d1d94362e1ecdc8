"""OAuth metadata (RFC 9728, RFC 8414) and dynamic client registration (RFC 7591)."""

import json
from contextlib import suppress
from typing import Any

import orjson
from flask import Blueprint, Response, g, request

from portal.domain.errors import InvalidRequest, NotFound, PortalError, TooLarge
from portal.domain.gateway_addresses import GatewayAddress, Names
from portal.services.oauth_broker import metadata, registration
from portal.web.api import payloads
from portal.web.limits import REGISTER, limiter
from portal.web.request_auth import of_the_broker

bp = Blueprint("oauth_metadata", __name__)
_LARGEST = 16 * 1024


@bp.get("/.well-known/oauth-protected-resource", endpoint="resource_at_root")
@bp.get("/.well-known/oauth-protected-resource/mcp", endpoint="resource_of_all")
@bp.get("/.well-known/oauth-protected-resource/<prefix>/mcp")
@bp.get("/.well-known/oauth-protected-resource/mcp/<prefix>", endpoint="resource_below_mcp")
@bp.get(
    "/.well-known/oauth-protected-resource/toolset/<toolset_name>/mcp",
    endpoint="resource_of_toolset",
)
@of_the_broker("document", asks_who=False)
def resource(prefix: str = "", toolset_name: str = "") -> Response:
    """Return the metadata of a protected resource (RFC 9728), without authentication."""
    addresses = {
        "resource_at_root": None,
        "resource_of_all": GatewayAddress(Names.ALL),
        "resource": GatewayAddress(Names.SERVER, prefix),
        "resource_below_mcp": GatewayAddress(Names.SERVER, prefix, below_mcp=True),
        "resource_of_toolset": GatewayAddress(Names.TOOLSET, toolset_name),
    }
    address = addresses[str(request.endpoint).rpartition(".")[2]]
    return _document(metadata.describe_resource(g.session, g.principal, address))


@bp.get(
    "/.well-known/oauth-authorization-server", defaults={"prefix": None}, endpoint="server_at_root"
)
@bp.get("/.well-known/oauth-authorization-server/<prefix>")
@of_the_broker("document", asks_who=False)
def authorization_server(prefix: str | None) -> Response:
    """Return the metadata of the portal as an authorization server (RFC 8414)."""
    return _document(metadata.describe_authorization_server(g.session, g.principal, prefix))


def _costs_nothing() -> bool:
    """Return whether the client is already registered, so that the request does not count."""
    arguments = request.view_args or {}
    reference = arguments.get("prefix", arguments.get("server_id", ""))
    is_known = "server_id" in arguments
    try:
        return registration.is_registered(
            g.session, g.principal, reference, _metadata(), by_id=is_known
        )
    except PortalError:
        return False


@bp.post("/v1/mcp/server/oauth/<server_id>/register")
@limiter.limit(REGISTER, exempt_when=_costs_nothing)
@of_the_broker("oauth")
def register(server_id: str) -> Response:
    """Register a client, authenticated by key or session."""
    with suppress(NotFound):  # an invalid body is reported first
        registration.require_may_register(g.session, g.principal, server_id)
    return _registered(registration.register(g.session, g.principal, server_id, _metadata()), 200)


@bp.post("/<prefix>/register")
@bp.post("/mcp/<prefix>/register", endpoint="register_from_root")
@bp.post("/register", defaults={"prefix": ""}, endpoint="register_at_root")
@bp.post("/oauth/register", defaults={"prefix": ""}, endpoint="register_at_issuer")
@limiter.limit(REGISTER, exempt_when=_costs_nothing)
@of_the_broker("oauth", asks_who=False)
def register_by_name(prefix: str) -> Response:
    """Register a client without authentication (RFC 7591)."""
    return _registered(
        registration.register_stranger(g.session, g.principal, prefix, _metadata()), 201
    )


def _document(document: dict[str, Any]) -> Response:
    response = Response(orjson.dumps(document), mimetype="application/json")
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response


def _metadata() -> dict[str, Any]:
    """Return the client metadata, sent as JSON or, as LiteLLM allows, as a form."""
    if request.content_length is not None and request.content_length > _LARGEST:
        raise TooLarge("Client metadata must not exceed 16 KiB.")
    request.get_data(cache=True)  # it is read twice: before the limit counts, and to register
    if request.mimetype == "application/x-www-form-urlencoded":
        return _of_form()
    return payloads.read_object()


def _of_form() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values in request.form.lists():
        if name in ("redirect_uris", "grant_types", "response_types"):
            found[name] = values if not values[0].startswith("[") else _listed(values[0])
        else:
            found[name] = values[-1]
    return found


def _listed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("A list is not valid JSON.", code="invalid_client_metadata") from None


def _registered(answer: dict[str, Any], status: int) -> Response:
    response = Response(orjson.dumps(answer), status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    return response
