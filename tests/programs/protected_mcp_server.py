"""An MCP server behind OAuth, on the official Python SDK: authorization server and resource server
in one process.

    python -m tests.programs.protected_mcp_server --port 8932

It listens on 127.0.0.1 only. `/mcp` wants a token for the resource `/mcp` with the scope `mcp`; the
tool `admin_note` wants a further scope. `/_peer/…` is for the test that started it: settings,
counters and the end of tokens.
"""

import argparse
import html
import json
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.routes import build_metadata
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions, RevocationOptions
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.programs.authority import BASE_SCOPE, Authority, asking_user, client_by_hand

STEP_UP_TOOL = "admin_note"
CONSENT = """<!doctype html><title>Allow access?</title><h1>Allow {client} to act for you?</h1>
<form method="post"><input type="hidden" name="ticket" value="{ticket}">
<label>Your name <input name="user" value="{user}"></label>
<button name="decision" value="allow">Allow</button>
<button name="decision" value="deny">Deny</button></form>"""


def add_tools(server: MCPServer[Any], authority: Authority) -> None:
    """Give `server` the three tools."""

    @server.tool()
    def whoami() -> dict[str, Any]:
        """Say for whom, by which client and with which scopes this call is made."""
        authority.counts["tool_calls"] += 1
        token = get_access_token()
        assert token is not None
        return {"subject": token.subject, "client_id": token.client_id, "scopes": token.scopes}

    @server.tool()
    def echo(text: str) -> str:
        """Answer `text`."""
        authority.counts["tool_calls"] += 1
        return text

    @server.tool(name=STEP_UP_TOOL)
    def admin_note() -> str:
        """Answer what only a token with the further scope may read."""
        authority.counts["tool_calls"] += 1
        return "for administrators"


class Door:
    """Counts what comes in, and answers what the SDK leaves open: the further scope and
    registration switched off."""

    def __init__(self, app: ASGIApp, authority: Authority) -> None:
        self.app, self.authority = app, authority

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        name = request.url.path.strip("/")
        asking_user.set(request.query_params.get("user") or request.cookies.get("peer_user"))
        if name == "register" and not self.authority.behavior.registration:
            await JSONResponse({"error": "not_found"}, 404)(scope, receive, send)
        elif name == "mcp" and request.method == "POST":
            await self._mcp(request, receive, send)
        else:
            if request.method != "OPTIONS":
                counted = {
                    "authorize": "authorize",
                    "register": "register",
                    "revoke": "revocations",
                }.get(name)
                self.authority.counts.update([counted] if counted else [])
            await self.app(scope, receive, self._watching(name, send))

    async def _mcp(self, request: Request, receive: Receive, send: Send) -> None:
        body = await Request(request.scope, receive).body()
        token = await self.authority.load_access_token(
            request.headers.get("authorization", "").partition(" ")[2]
        )
        further = self.authority.behavior.step_up_scope
        if token is not None and further not in token.scopes and _called_tool(body) == STEP_UP_TOOL:
            self.authority.counts["insufficient_scope"] += 1
            await _refuse(self.authority.issuer, f"{BASE_SCOPE} {further}")(
                request.scope, receive, send
            )
            return
        delivered = False

        async def replay() -> Message:
            nonlocal delivered
            if delivered:
                return await receive()
            delivered = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(request.scope, replay, self._watching("mcp", send))

    def _watching(self, name: str, send: Send) -> Send:
        async def watch(message: Message) -> None:
            status = message.get("status", 200)
            if name == "mcp" and status == 401:
                self.authority.counts["unauthorized"] += 1
            if name == "token" and status >= 400:
                self.authority.counts["refused_grants"] += 1
            await send(message)

        return watch


def _called_tool(body: bytes) -> str | None:
    try:
        asked = json.loads(body)
    except ValueError:
        return None
    if not isinstance(asked, dict) or asked.get("method") != "tools/call":
        return None
    return str(asked.get("params", {}).get("name"))


def _refuse(issuer: str, scope: str) -> Response:
    challenge = (
        f'Bearer error="insufficient_scope", scope="{scope}", '
        f'resource_metadata="{issuer}/.well-known/oauth-protected-resource/mcp"'
    )
    return JSONResponse({"error": "insufficient_scope"}, 403, {"WWW-Authenticate": challenge})


def own_routes(authority: Authority) -> list[Route]:
    """Return the metadata document (with what the SDK's lacks), the consent page and the test's own
    endpoints."""

    async def metadata(request: Request) -> Response:
        behavior = authority.behavior
        document = build_metadata(
            AnyHttpUrl(authority.issuer),
            None,
            ClientRegistrationOptions(
                enabled=behavior.registration, valid_scopes=[BASE_SCOPE, behavior.step_up_scope]
            ),
            RevocationOptions(enabled=True),
        ).model_dump(mode="json", exclude_none=True)
        document["issuer"] = authority.issuer
        document["token_endpoint_auth_methods_supported"].append("none")
        document["authorization_response_iss_parameter_supported"] = behavior.response_iss
        document["client_id_metadata_document_supported"] = behavior.client_documents
        return JSONResponse(document)

    async def ask_consent(request: Request) -> Response:
        ticket = request.query_params.get("ticket", "")
        if ticket not in authority.pending:
            return HTMLResponse("<h1>This request is over</h1>", 400)
        client = authority.pending[ticket][0]
        shown = {
            "client": client.client_name or client.client_id,
            "ticket": ticket,
            "user": authority.behavior.user,
        }
        return HTMLResponse(
            CONSENT.format(**{name: html.escape(text) for name, text in shown.items()})
        )

    async def consent(request: Request) -> Response:
        form = await request.form()
        waiting = authority.pending.pop(str(form.get("ticket")), None)
        if waiting is None:
            return HTMLResponse("<h1>This request is over</h1>", 400)
        if form.get("decision") == "allow":
            target = authority.allow(*waiting, user=str(form.get("user")))
        else:
            target = authority.back(waiting[1], error="access_denied")
        return RedirectResponse(target, 302)

    return [
        Route("/.well-known/oauth-authorization-server", metadata),
        Route("/consent", ask_consent, methods=["GET"]),
        Route("/consent", consent, methods=["POST"]),
        Route("/_peer/{action}", control(authority), methods=["GET", "POST"]),
    ]


def control(authority: Authority) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint by which the test steers this server and asks what happened."""

    async def act(request: Request) -> Response:
        action = request.path_params["action"]
        if action == "settings":
            authority.behavior.change(await request.json())
        elif action == "clients":
            await authority.register_client(client_by_hand(**await request.json()))
        elif action in ACTIONS:
            ACTIONS[action](authority)
        elif action != "counters":
            return JSONResponse({"error": "no such action"}, 404)
        return JSONResponse(authority.counters())

    return act


ACTIONS = {
    "reset": Authority.forget,
    "expire": Authority.expire_access_tokens,
    "revoke": Authority.revoke_all,
}


def _settings(issuer: str) -> AuthSettings:
    # From text: pydantic would end a ready-made URL in a slash, and issuers are compared letter by
    # letter (RFC 8414).
    addresses = {"issuer_url": issuer, "resource_server_url": f"{issuer}/mcp"}
    return AuthSettings.model_validate(
        {
            **addresses,
            "required_scopes": [BASE_SCOPE],
            "validate_token_resource": True,
            "revocation_options": RevocationOptions(enabled=True),
            "client_registration_options": ClientRegistrationOptions(
                enabled=True, default_scopes=[BASE_SCOPE]
            ),
        }
    )


def build(port: int) -> ASGIApp:
    """Return the whole server as an ASGI application that believes to be on `port`."""
    issuer = f"http://127.0.0.1:{port}"
    authority = Authority(issuer)
    server = MCPServer(
        "protected",
        version="1.0.0",
        log_level="WARNING",
        auth_server_provider=authority,
        auth=_settings(issuer),
    )
    add_tools(server, authority)
    app: Starlette = server.streamable_http_app(json_response=True)
    app.router.routes[:0] = own_routes(authority)
    return Door(app, authority)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--port", type=int, required=True)
    port: int = arguments.parse_args().port
    uvicorn.run(build(port), host="127.0.0.1", port=port, log_level="warning")
