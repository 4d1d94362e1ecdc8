"""What holds for every endpoint: default deny, CSRF, GET that changes nothing, headers, cookies,
sessions that end."""

from collections.abc import Iterator
from http.cookies import SimpleCookie
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from portal.app import create_app, open_database
from portal.store.models import Base
from portal.web.context import OPEN_ENDPOINTS
from tests.security.test_routes import address, every_route, send
from tests.support.factories import PASSWORD
from tests.support.security.callers import Caller, World, token_in

# Clients in browsers read these from anywhere, and ask whether what they have is still good.
REGISTRY = {
    "api_registry.gateway",
    "api_registry.list_entries",
    "api_registry.list_versions",
    "api_registry.get_version",
}
SSO = {"sign_in.start", "sign_in.callback"}
OAUTH = {"oauth_callback.came_back", "oauth_documents.client"}
REGISTER = ("", "_by_name", "_from_root", "_at_root", "_at_issuer")
BROKER = {
    *(
        f"oauth_broker.{what}{how}"
        for what in ("authorize", "token")
        for how in ("", "_by_name", "_from_root", "_at_root")
    ),
    *(f"oauth_metadata.register{how}" for how in REGISTER),
    "oauth_broker.consent",
    "oauth_broker.decide",
}
# Clients register there for themselves, whosoever browser they run in: no session is looked at.
NO_SESSION = {f"oauth_metadata.register{how}" for how in REGISTER[1:]}
NO_SESSION |= {"oauth_server.token", "oauth_server.revoke", "oauth_byok.token_at_old_address"}
CLIENTS_READ = ("/.well-known/oauth-protected-resource", "/.well-known/oauth-authorization-server")
METADATA = {
    "resource",
    "resource_at_root",
    "resource_below_mcp",
    "resource_of_all",
    "resource_of_toolset",
    "authorization_server",
    "server_at_root",
}
SERVER = {"oauth_server.token", "oauth_server.revoke"}
BYOK = {"oauth_byok.token_at_old_address", "oauth_byok.ask_at_old_address"}
DOCUMENTS = {f"oauth_metadata.{name}" for name in METADATA}
OPEN = {
    "static",
    "healthz",
    "readyz",
    "metrics",
    "accounts.sign_in",
    "hub.index",
    "api_document.get_document",
    *REGISTRY,
    *SSO,
    *OAUTH,
    *BROKER,
    *DOCUMENTS,
    *BYOK,
    *SERVER,
}
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}
# What a request may leave behind without having been asked to change anything.
TRACES = {
    "sessions": {"*"},  # the sign-in page gives a stranger one, for its CSRF token
    "api_keys": {"last_used_at"},
    # The two health reads of the API probe, and everybody who looks sees what they saw
    # (`1-system.md`, 6).
    "servers": {
        "health_status",
        "health_reason",
        "health_error",
        "health_checked_at",
        "health_latency_ms",
        "protocol_version",
        "probe_due_at",
        "probe_started_at",
        "probe_failures",
    },
    "health_records": {"*"},
    "rate_counts": {"*"},  # what is limited is counted, GET or not
}
HEADERS = {
    "Content-Security-Policy": [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    ],
    "X-Content-Type-Options": ["nosniff"],
    "Referrer-Policy": ["same-origin"],
    "Permissions-Policy": ["camera=()"],
    "Cross-Origin-Opener-Policy": ["same-origin"],
}


@pytest.fixture
def https(world: World) -> Iterator[Flask]:
    """The same portal where people reach it by https."""
    settings = world.settings.model_copy(update={"public_url": "https://portal.example"})
    database = open_database(settings)
    yield create_app(settings, database=database)
    database.engine.dispose()


def rows(world: World) -> dict[str, Any]:
    """All that is stored, the traces aside."""
    found = {}
    with world.database.session() as session:
        for table in Base.metadata.sorted_tables:
            traces = TRACES.get(table.name, set())
            if "*" not in traces:
                stored = session.execute(select(table).order_by(*table.primary_key)).mappings()
                found[table.name] = [{k: row[k] for k in row if k not in traces} for row in stored]
    return found


def closed(world: World) -> list[tuple[str, Rule]]:
    return [(method, rule) for method, rule in every_route(world) if rule.endpoint not in OPEN]


# Default deny


def test_what_is_open_to_strangers_is_a_short_list() -> None:
    assert set(OPEN_ENDPOINTS) == OPEN
    assert all(OPEN_ENDPOINTS.values())


def test_every_other_endpoint_refuses_strangers(world: World) -> None:
    nobody = world.callers["nobody"]
    for method, rule in closed(world):
        answer = send(nobody, method, rule, world.ids)
        if rule.rule.startswith("/v1/"):
            assert answer.status_code == 401, rule
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.get_json()["detail"]["error"] == "unauthenticated"
        else:
            assert answer.status_code == 303, rule
            assert answer.headers["Location"].split("?")[0] == "/login"


def test_htmx_is_told_to_navigate_strangers_to_the_sign_in_page(world: World) -> None:
    answer = world.callers["ended"].ask("GET", "/servers", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, "/login")


def test_other_methods_of_an_address_are_no_way_in(world: World) -> None:
    for _, rule in closed(world):
        for method in ("HEAD", "OPTIONS", "TRACE", "PROPFIND"):
            answer = world.callers["nobody"].ask(method, address(rule, world.ids))
            assert answer.status_code in (303, 401, 405), (method, rule)


# CSRF


@pytest.mark.parametrize("name", ["admin", "member"])
def test_a_session_changes_nothing_without_its_token(fresh: World, name: str) -> None:
    caller = fresh.callers[name]
    before = rows(fresh)
    other = fresh.callers["reader"].token
    for method, rule in every_route(fresh):
        if method not in UNSAFE or rule.endpoint in NO_SESSION:
            continue
        bare = Caller(name, caller.client, {})
        wrong = Caller(name, caller.client, {"X-CSRFToken": other})
        cross = Caller(name, caller.client, {"Sec-Fetch-Site": "cross-site"}, caller.token)
        for asking in (bare, wrong, cross):
            assert send(asking, method, rule, fresh.ids).status_code == 400, rule
    assert rows(fresh) == before


def test_a_token_in_the_body_does_for_a_form(fresh: World) -> None:
    caller = fresh.callers["member"]
    bare = Caller("member", caller.client, {})
    fields = {"display_name": "Melanie", "theme": "dark", "csrf_token": caller.token}
    assert bare.ask("POST", "/profile", data=fields).status_code == 303


def test_get_changes_nothing(fresh: World) -> None:
    before = rows(fresh)
    for name in ("admin", "member", "k-admin", "nobody"):
        for method, rule in every_route(fresh):
            if method == "GET":
                send(fresh.callers[name], method, rule, fresh.ids)
                fresh.callers[name].ask(
                    "GET",
                    f"{address(rule, fresh.ids)}?test=1&now=1",
                    headers={"HX-Request": "true"},
                )
    after = rows(fresh)
    assert {table for table in before if before[table] != after[table]} == set()


# Headers, cookies, Host


def test_every_answer_carries_the_security_headers(world: World) -> None:
    answers = [
        send(world.callers[n], "GET", r, world.ids)
        for n in ("nobody", "admin", "k-admin")
        for m, r in every_route(world)
        if m == "GET"
    ]
    answers += [
        world.callers["admin"].ask("GET", path)
        for path in ("/nowhere", "/v1/nowhere", "/servers/no-such-id")
    ]
    answers += [
        world.callers["nobody"].ask("PUT", "/login"),
        world.callers["nobody"].ask("GET", "/", headers={"Host": "evil"}),
    ]
    for answer in answers:
        came_back = answer.request.path in (
            "/callback",
            "/oauth/callback",
        )  # its address holds a code
        own = {"Referrer-Policy": ["no-referrer"]} if came_back else {}
        for header, parts in {**HEADERS, **own}.items():
            for part in parts:
                assert part in answer.headers.get(header, ""), (answer.request.path, header)
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "*" not in policy
        assert "Strict-Transport-Security" not in answer.headers
        if not answer.request.path.startswith("/static/"):
            wanted = "no-cache" if answer.request.path == "/v1/openapi.json" else "no-store"
            assert answer.headers["Cache-Control"] == wanted, answer.request.path
        assert "Server" not in answer.headers
        is_registry = (
            answer.request.path.startswith("/v0.1/")
            or answer.request.path == "/v1/mcp/registry.json"
        )
        is_metadata = answer.request.path.startswith(CLIENTS_READ) and answer.status_code == 200
        open_to_all = is_registry or is_metadata
        assert ("Access-Control-Allow-Origin" in answer.headers) is open_to_all, answer.request.path


def _cookies(answer: TestResponse) -> dict[str, Any]:
    jar: SimpleCookie = SimpleCookie()
    for line in answer.headers.getlist("Set-Cookie"):
        jar.load(line)
    return dict(jar)


def test_cookies_cannot_be_read_by_scripts_or_sent_from_elsewhere(world: World) -> None:
    answers = [
        world.app.test_client().get("/login"),
        world.callers["member"].ask("GET", "/servers?view=table"),
    ]
    jar = {name: cookie for answer in answers for name, cookie in _cookies(answer).items()}
    assert set(jar) == {"portal", "view"}
    for cookie in jar.values():
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
        assert not cookie["domain"]
        assert not cookie["secure"]


def test_over_https_cookies_are_bound_to_the_host_and_hsts_is_on(https: Flask) -> None:
    client = https.test_client()
    page = client.get("/login", base_url="https://portal.example")
    fields = {"email": "mel@example.com", "password": PASSWORD, "csrf_token": token_in(page)}
    signed = client.post("/login", data=fields, base_url="https://portal.example")
    view = client.get("/servers?view=table", base_url="https://portal.example")
    assert (signed.status_code, view.status_code) == (303, 200)
    for answer in (page, signed, view):
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=31536000")
        for name, cookie in _cookies(answer).items():
            assert cookie["secure"], name
            assert cookie["path"] == "/"
            assert not cookie["domain"]
    assert set(_cookies(page)) == {"__Host-portal"}


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "portal.example:8000", "[::2]", "a b", "x:99999"],
)
def test_another_host_is_refused_whatever_is_asked(world: World, host: str) -> None:
    """A page under another name that resolves to us (DNS rebinding) gets nothing."""
    for path in ("/", "/login", "/servers", "/v1/me", "/nowhere", "/static/portal.css"):
        answer = world.callers["k-admin"].ask("GET", path, headers={"Host": host})
        assert answer.status_code == 400, (host, path)
    assert world.callers["nobody"].ask("GET", "/healthz", headers={"Host": host}).status_code in (
        200,
        400,
    )


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_loopback_names_are_ours_where_the_public_url_is_loopback(world: World, host: str) -> None:
    assert world.callers["nobody"].ask("GET", "/login", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("portal.example", 200),
        ("PORTAL.example:443", 200),
        ("127.0.0.1", 400),
        ("portal.example:80", 400),
    ],
)
def test_with_a_public_name_only_that_name_is_ours(https: Flask, host: str, status: int) -> None:
    answer = https.test_client().get(
        "/login", base_url="https://portal.example", headers={"Host": host}
    )
    assert answer.status_code == status


def test_a_forwarded_host_is_not_believed(world: World) -> None:
    answer = world.callers["nobody"].ask(
        "GET",
        "/servers",
        headers={"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"},
    )
    assert answer.headers["Location"].startswith("/login")
    assert "evil" not in answer.get_data(as_text=True)
