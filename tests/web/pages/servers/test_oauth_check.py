"""The OAuth doctor: each fault is switched on at real peers, and named with its remedy; nothing
secret is shown."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
from bs4 import BeautifulSoup
from flask import Flask, jsonify
from werkzeug.test import TestResponse

from portal.app import create_app, open_database
from tests.conftest import KEYS, Client, Portal, Write, make_settings
from tests.support.browsing import text_of
from tests.support.factories import make_server
from tests.support.html import parse
from tests.support.oauth.recording import RecordingServer
from tests.support.oauth.serving import Answer, serving
from tests.support.oauth_peers import ProtectedServer
from tests.support.peers import free_port

PUBLIC = "http://127.0.0.1:8000"
PATH = "/servers/id-remote/oauth-check"
SignedIn = Callable[[str], Client]
Asking = Callable[[str | None], Client]


@pytest.fixture
def remote(write: Write, recording_as: RecordingServer) -> RecordingServer:
    """The recording server, entered as the OAuth server `remote`."""
    with write() as session:
        make_server(session, "remote", url=recording_as.url, auth_type="oauth2")
    assert recording_as.metadata
    assert recording_as.resource_metadata
    recording_as.resource_metadata["scopes_supported"] = ["mcp"]
    return recording_as


@pytest.fixture
def ada(signed_in: SignedIn) -> Client:
    return signed_in("ada").with_csrf()


def run(client: Client, path: str = PATH, **headers: str) -> BeautifulSoup:
    return parse(client.post(path, headers=headers))


def steps_of(page: BeautifulSoup) -> dict[str, str]:
    """What the page says of each step: its verdict, and all the rest."""
    steps = page.select(".step")
    assert steps
    return {step.select_one("strong").text: text_of(step) for step in steps}  # type: ignore[union-attr]


def report(client: Client, **headers: str) -> dict[str, Any]:
    answer = client.get("/v1/mcp/server/id-remote/oauth-check", headers=headers)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()
    return found


def by_title(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["title"]: step for section in found["sections"] for step in section["steps"]}


def section(found: dict[str, Any], name: str) -> dict[str, str]:
    steps = next(part["steps"] for part in found["sections"] if part["name"] == name)
    return {step["title"]: step["verdict"] for step in steps}


def test_the_page_comes_first_and_starts_the_check(ada: Client, remote: RecordingServer) -> None:
    """UI-69. Without JavaScript a button does."""
    page = parse(ada.get(PATH))
    assert not remote.requests
    form = page.select_one(f'form[action="{PATH}"]')
    assert form
    assert form["hx-trigger"] == "load, submit"
    assert form.select_one(".no-js-only button")
    assert "http://127.0.0.1:8000/oauth/callback" in text_of(page)


def test_a_whole_check_says_what_was_asked_and_what_came(
    ada: Client, remote: RecordingServer
) -> None:
    page = run(ada)
    steps = steps_of(page)
    assert "POST" in steps["Ask the MCP server without a token"]
    assert "→ 401" in steps["Ask the MCP server without a token"]
    assert "code_challenge_methods_supported" in text_of(page)
    assert "Run again" in text_of(page)
    fragment = ada.post(PATH, headers={"HX-Request": "true"})
    assert "<html" not in fragment.get_data(as_text=True)
    assert "Register as a client" in fragment.get_data(as_text=True)
    assert all("authorization" not in request.headers for request in remote.requests)


def test_a_server_on_the_official_sdk_has_no_fault(
    client: Asking, write: Write, protected_mcp_server: ProtectedServer
) -> None:
    with write() as session:
        make_server(session, "remote", url=protected_mcp_server.url, auth_type="oauth2")
    found = report(client("ada"))
    assert set(section(found, "The server").values()) == {"ok"}, found["sections"][0]
    assert set(section(found, "Other clients").values()) == {"ok"}, found["sections"][1]


def _metadata(**changes: Any) -> Callable[[RecordingServer], None]:
    def change(peer: RecordingServer) -> None:
        assert peer.metadata
        peer.metadata |= changes

    return change


def _resource(**changes: Any) -> Callable[[RecordingServer], None]:
    def change(peer: RecordingServer) -> None:
        assert peer.resource_metadata
        peer.resource_metadata |= changes

    return change


def _set(**changes: Any) -> Callable[[RecordingServer], None]:
    def change(peer: RecordingServer) -> None:
        for name, value in changes.items():
            setattr(peer, name, value)

    return change


def _answer(kind: str, answer: Answer) -> Callable[[RecordingServer], None]:
    return lambda peer: peer.answer(kind, answer)


FIRST = "Ask the MCP server without a token"
RESOURCE = "Read the resource's metadata (RFC 9728)"
SERVER = "Read the authorization server's metadata (RFC 8414, OpenID Connect Discovery)"
FAULTS = [
    (_set(challenge=None), FIRST, "warn", "bearer token", "resource_metadata"),
    (_answer("mcp", Answer(json={})), FIRST, "warn", "returned 200", "401"),
    (
        _resource(resource="https://other.example/mcp"),
        RESOURCE,
        "fail",
        "different resource",
        "`resource`",
    ),
    (_metadata(issuer="https://evil.example"), SERVER, "fail", "a different issuer", "`issuer`"),
    (
        _metadata(token_endpoint="http://as.example/token"),
        SERVER,
        "fail",
        "token_endpoint is not https",
        "https",
    ),
    (_metadata(code_challenge_methods_supported=["plain"]), SERVER, "fail", "PKCE", "S256"),
    (
        _metadata(code_challenge_methods_supported=None),
        "Check PKCE (RFC 7636)",
        "warn",
        "PKCE",
        "S256",
    ),
    (_set(metadata=None), SERVER, "fail", "No metadata", "authorization URL and the token URL"),
    (
        _answer("metadata", Answer.html()),
        SERVER,
        "fail",
        "No metadata",
        "authorization URL and the token URL",
    ),
    (
        _answer("metadata", Answer.redirect("http://169.254.169.254/")),
        SERVER,
        "fail",
        "No metadata",
        "token URL",
    ),
    (
        _metadata(registration_endpoint=None),
        "Register as a client",
        "fail",
        "no client ID",
        "Register an app",
    ),
    (
        _metadata(registration_endpoint=None, client_id_metadata_document_supported=True),
        "Register as a client",
        "fail",
        "not https",
        "over https",
    ),
    (
        _metadata(token_endpoint_auth_methods_supported=["private_key_jwt"]),
        "Authenticate at the token endpoint",
        "fail",
        "does not support",
        "client_secret_post",
    ),
    (
        _metadata(revocation_endpoint=None),
        "Check token revocation (RFC 7009)",
        "warn",
        "valid until it expires",
        "revocation_endpoint",
    ),
    (_set(challenge="Bearer"), "Claude Code", "warn", "resource_metadata", "RFC 9728"),
    (
        _metadata(registration_endpoint=None),
        "Claude Code",
        "warn",
        "dynamic registration",
        "registration_endpoint",
    ),
    (_metadata(jwks_uri=None), "Claude Code", "warn", "null", "Remove null"),
    (_resource(scopes_supported=[]), "Cursor", "warn", "scopes", "scopes_supported"),
    (
        _set(resource_metadata=None),
        "VS Code",
        "warn",
        "resource metadata",
        "oauth-protected-resource",
    ),
]


@pytest.mark.parametrize(("change", "title", "verdict", "said", "remedy"), FAULTS)
def test_each_fault_is_named_with_its_remedy(
    client: Asking,
    remote: RecordingServer,
    change: Callable[[RecordingServer], None],
    title: str,
    verdict: str,
    said: str,
    remedy: str,
) -> None:
    change(remote)
    found = report(client("ada"))
    step = by_title(found)[title]
    assert step["verdict"] == verdict
    assert said in step["said"]
    assert remedy in step["remedy"]
    if verdict == "fail":
        assert (found["first"]["title"], found["problems"] > 0) == (title, True)


def test_a_resource_that_only_covers_the_url_is_warned_of(
    client: Asking, remote: RecordingServer
) -> None:
    _resource(resource=remote.issuer)(remote)
    steps = by_title(report(client("ada")))
    assert steps["Compare the resource identifier"]["verdict"] == "warn"
    assert "equals the URL" in steps["VS Code"]["said"]
    assert steps["MCP SDKs, Inspector, mcp-remote"]["verdict"] == "ok"


def test_the_summary_names_the_first_remedy(ada: Client, remote: RecordingServer) -> None:
    _metadata(issuer="https://evil.example")(remote)
    alert = run(ada).select_one("#oauth-report .alert")
    assert alert
    assert "problem" in text_of(alert)
    assert "a different issuer" in text_of(alert)
    assert "How to fix it:" in text_of(alert)


def test_a_stored_client_id_and_typed_addresses_go_before_discovery(
    client: Asking, write: Write
) -> None:
    with write() as session:
        make_server(
            session,
            "remote",
            auth_type="oauth2",
            authorization_url="https://as.example/authorize",
            token_url="https://as.example/token",
            credentials={"client_id": "c", "client_secret": "SECRET"},
        )
    found = report(client("ada"))
    steps = by_title(found)
    assert "fail" not in section(found, "The server").values()
    assert steps["Use the addresses of the server's form"]["verdict"] == "ok"
    assert "stored" in steps["Register as a client"]["said"]
    assert "SECRET" not in str(found)


def test_a_typed_token_address_that_differs_is_warned_of(
    client: Asking, write: Write, recording_as: RecordingServer
) -> None:
    with write() as session:
        make_server(
            session,
            "remote",
            url=recording_as.url,
            auth_type="oauth2",
            token_url="https://old.example/token",
            authorization_url="https://old.example/authorize",
        )
    step = by_title(report(client("ada")))["Use the addresses of the server's form"]
    assert (step["verdict"], "differs" in step["said"]) == ("warn", True)


def test_a_machine_needs_an_id_and_a_secret(
    client: Asking, write: Write, recording_as: RecordingServer
) -> None:
    with write() as session:
        make_server(
            session,
            "remote",
            url=recording_as.url,
            auth_type="oauth2",
            oauth2_flow="client_credentials",
            token_url=recording_as.endpoint("token"),
        )
    found = report(client("ada"))
    assert by_title(found)["Find the portal's client credentials"]["verdict"] == "fail"
    assert [part["name"] for part in found["sections"]] == ["The server", "The portal's address"]


@pytest.mark.parametrize(
    ("headers", "title", "verdict", "said", "remedy"),
    [
        ({"Origin": PUBLIC}, "Compare PORTAL", "ok", "in your browser", ""),
        ({}, "Compare PORTAL", "ok", "in your browser", ""),
        ({"Origin": "http://localhost:8000"}, "Compare PORTAL", "warn", "another name", PUBLIC),
        (
            {"Origin": "https://portal.example"},
            "Compare PORTAL",
            "fail",
            "another address",
            "=https://portal.example",
        ),
        (
            {"Referer": "https://portal.example/x"},
            "Compare PORTAL",
            "fail",
            "another address",
            "=https://portal.example",
        ),
        ({"Origin": "null"}, "Compare PORTAL", "ok", "in your browser", ""),
        ({"Origin": "https://[bad"}, "Compare PORTAL", "ok", "in your browser", ""),
        ({"Origin": PUBLIC}, "Check https", "warn", "__Host-", "https"),
        (
            {"Origin": "https://127.0.0.1:8000"},
            "Check https",
            "fail",
            "connect over https",
            "https",
        ),
        ({"X-Forwarded-Proto": "https"}, "Check https", "fail", "connect over https", "https"),
        ({}, "Check for proxies", "ok", "No proxy headers", ""),
        (
            {"X-Forwarded-For": "192.0.2.7"},
            "Check for proxies",
            "warn",
            "untrusted proxy",
            "127.0.0.1",
        ),
        (
            {"X-Forwarded-Host": "portal.example"},
            "Check for proxies",
            "warn",
            "host of the request",
            "127.0.0.1:8000",
        ),
        (
            {"X-Forwarded-Proto": "https"},
            "Check for proxies",
            "warn",
            "scheme of the request",
            "https",
        ),
        (
            {"X-Forwarded-Host": "127.0.0.1:8000"},
            "Check for proxies",
            "ok",
            "PORTAL_PUBLIC_URL",
            "",
        ),
    ],
)
def test_what_the_browser_and_proxies_say_is_compared(
    client: Asking,
    remote: RecordingServer,
    headers: dict[str, str],
    title: str,
    verdict: str,
    said: str,
    remedy: str,
) -> None:
    found = by_title(report(client("ada"), **{"Host": "127.0.0.1:8000", **headers}))
    step = next(step for name, step in found.items() if name.startswith(title))
    assert (step["verdict"], said in step["said"], remedy in step["remedy"]) == (
        verdict,
        True,
        True,
    ), step


@contextmanager
def _standing_at_the_public_url(portal: Portal, documents: dict[str, Any]) -> Iterator[Client]:
    """What answers at the public URL, as whatever stands before the portal passes it on."""
    outside = Flask("outside")
    outside.add_url_rule(
        "/<path:path>",
        view_func=lambda path: (
            (jsonify(documents[path]), 200)
            if path in documents
            else ("<h1>Another program</h1>", 404)
        ),
    )
    with serving(outside, Event()) as public:
        documents.update(json.loads(json.dumps(documents).replace(PUBLIC, public)))
        with _portal_at(portal, public) as client:
            yield client


@contextmanager
def _portal_at(portal: Portal, public: str) -> Iterator[Client]:
    """Ada's client of a portal that is told to be at `public`."""
    settings = make_settings(portal.settings.database_url, public_url=public)
    database = open_database(settings)
    headers = {"Authorization": f"Bearer {KEYS['ada']}", "Host": public.removeprefix("http://")}
    yield Client(create_app(settings, database=database).test_client(use_cookies=False), headers)
    database.engine.dispose()


def _documents() -> dict[str, Any]:
    issuer = f"{PUBLIC}/remote"
    return {
        ".well-known/oauth-protected-resource/remote/mcp": {
            "resource": f"{PUBLIC}/remote/mcp",
            "authorization_servers": [issuer],
        },
        ".well-known/oauth-authorization-server/remote": {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
        },
        ".well-known/oauth-client": {
            "client_id": f"{PUBLIC}/.well-known/oauth-client",
            "redirect_uris": [f"{PUBLIC}/oauth/callback"],
        },
    }


def test_the_portals_own_documents_are_read_by_the_public_url(
    portal: Portal, remote: RecordingServer
) -> None:
    with _standing_at_the_public_url(portal, _documents()) as client:
        found = report(client)
    assert list(section(found, "The portal's documents").values()) == ["ok"] * 3, found
    assert found["problems"] == 0


@pytest.mark.parametrize(
    ("path", "change", "title", "said"),
    [
        (
            "oauth-protected-resource/remote/mcp",
            None,
            "Read the server's resource metadata",
            "Not found",
        ),
        (
            "oauth-protected-resource/remote/mcp",
            {"authorization_servers": []},
            "Read the server's",
            "lists no",
        ),
        ("oauth-authorization-server/remote", None, "Read the portal as", "Not found"),
        (
            "oauth-authorization-server/remote",
            {"issuer": "https://evil.example"},
            "Read the portal as",
            "issuer",
        ),
        (
            "oauth-authorization-server/remote",
            {"token_endpoint": "https://evil/"},
            "Read the portal as",
            "below",
        ),
        (
            "oauth-client",
            {"client_id": "https://other.example/"},
            "Read the portal's document",
            "client_id",
        ),
        ("oauth-client", {"redirect_uris": []}, "Read the portal's document", "callback"),
    ],
)
def test_another_program_at_the_public_url_is_noticed(
    portal: Portal,
    remote: RecordingServer,
    path: str,
    change: dict[str, Any] | None,
    title: str,
    said: str,
) -> None:
    documents = _documents()
    if change is None:
        del documents[f".well-known/{path}"]
    else:
        documents[f".well-known/{path}"] |= change
    with _standing_at_the_public_url(portal, documents) as client:
        steps = by_title(report(client))
    step = next(step for name, step in steps.items() if name.startswith(title))
    assert (step["verdict"], said in step["said"], "/.well-known/" in step["remedy"]) == (
        "fail",
        True,
        True,
    ), step


def test_a_portal_that_does_not_reach_itself_is_warned_not_blamed(
    portal: Portal, remote: RecordingServer
) -> None:
    """Where a network does not lead back in, clients outside may have no trouble."""
    with _portal_at(portal, f"http://127.0.0.1:{free_port()}") as client:
        steps = by_title(report(client))
    step = steps["Read the portal as its authorization server"]
    assert (step["verdict"], "From here" in step["said"], "outside" in step["remedy"]) == (
        "warn",
        True,
        True,
    )


def test_no_secret_of_the_server_or_the_answers_is_shown(
    ada: Client, client: Asking, write: Write, recording_as: RecordingServer
) -> None:
    secret = f"{recording_as.issuer}/SECRET-path-of-the-url/mcp?key=SECRET-query"
    with write() as session:
        make_server(
            session,
            "remote",
            url=secret,
            auth_type="oauth2",
            static_headers={"X-Key": "SECRET-header"},
            credentials={"client_id": "SECRET-id", "client_secret": "SECRET-secret"},
        )
    _metadata(service_documentation=secret)(recording_as)
    recording_as.answer(
        "other", Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{secret}"'}), times=1
    )
    run(ada)  # looks for SECRET itself
    assert "SECRET" not in str(report(client("ada")))
    assert not [request for request in recording_as.requests if "x-key" in request.headers]


@pytest.mark.parametrize("name", ["vera", "mel", "otto"])
def test_only_an_admin_runs_it(
    signed_in: SignedIn, client: Asking, remote: RecordingServer, name: str
) -> None:
    answers: list[TestResponse] = [
        signed_in(name).get(PATH),
        signed_in(name).with_csrf().post(PATH),
        client(name).get("/v1/mcp/server/id-remote/oauth-check"),
    ]
    assert [answer.status_code for answer in answers] == [404, 403 if name == "vera" else 404, 403]
    assert not remote.requests


def test_the_configuration_and_health_of_an_oauth_server_lead_there(
    ada: Client, remote: RecordingServer
) -> None:
    for tab in ("configuration", "health"):
        assert parse(ada.get(f"/servers/id-remote/{tab}")).select_one(f'a[href="{PATH}"]')
        assert not parse(ada.get(f"/servers/id-notes/{tab}")).select_one('a[href$="oauth-check"]')


def test_a_server_without_oauth_or_without_a_url_is_told_so(client: Asking, write: Write) -> None:
    with write() as session:
        make_server(session, "remote", url=None, spec_path="https://api.example/openapi.json")
    found = report(client("ada"))
    assert "no URL" in by_title(found)[FIRST]["said"]
    assert "not set to OAuth" in by_title(found)["Read its configuration"]["said"]
