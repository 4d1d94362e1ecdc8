"""Clients that register at the broker (RFC 7591), and the documents they read first (RFC 9728, RFC
8414)."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from portal.store.models import ServerSecret
from portal.store.oauth_tables import McpClient, OAuthClientRegistration
from tests.conftest import Client, Write
from tests.support.oauth.asking import ASKED, BACK, BASE, PUBLIC, authorize, departed
from tests.support.oauth.recording import RecordingServer

As = Callable[[str | None], Client]
Add = Callable[..., str]
VS_CODE = {
    "client_name": "Visual Studio Code",
    "redirect_uris": [
        BACK,
        "http://127.0.0.1:33418/",
        "vscode://evil",
        "https://nobody.example/cb",
    ],
    "grant_types": [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
    ],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
    "application_type": "native",
    "logo_uri": "http://169.254.169.254/",
}


def test_a_client_of_a_stranger_is_taken_down_as_a_claim(
    client: As, write: Write, add: Add
) -> None:
    add(delegate_auth_to_upstream=True)
    answer = client(None).post("/guarded/register", VS_CODE)
    body = answer.get_json()
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert body["client_id"].startswith("mcp-")
    assert len(body["client_id"]) >= 32
    assert body["redirect_uris"] == [BACK, "http://127.0.0.1:33418/"], (
        "OAU-43: the valid ones, all of them"
    )
    assert body["grant_types"] == ["authorization_code", "refresh_token"]
    assert "client_secret" not in body
    with write() as session:
        row = session.scalars(select(McpClient)).one()
        assert (row.server_id, row.client_id, row.client_name) == (
            "id-guarded",
            body["client_id"],
            "Visual Studio Code",
        )


def test_a_registered_client_is_held_to_its_redirect_uris_and_its_server(
    client: As, add: Add
) -> None:
    """R-OAUTH-05: equal as strings, save the port of http on this machine."""
    add(delegate_auth_to_upstream=True)
    add("second")
    made = (
        client(None)
        .post("/guarded/register", {"redirect_uris": ["http://127.0.0.1:5000/cb"]})
        .get_json()
    )
    ours = {"client_id": made["client_id"]}
    assert departed(client("ada"), redirect_uri="http://127.0.0.1:61234/cb", **ours)
    for uri in (
        "http://127.0.0.1:5000/other",
        "http://localhost:5000/cb",
        "http://127.0.0.1:5000/cb?x=1",
    ):
        assert authorize(client("ada"), redirect_uri=uri, **ours).status_code == 400
    at_second = "/v1/mcp/server/oauth/id-second"
    assert (
        authorize(
            client("ada"), at_second, redirect_uri="http://127.0.0.1:5000/cb", **ours
        ).status_code
        == 400
    )


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({"redirect_uris": ["https://nobody.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": BACK}, "invalid_redirect_uri"),
        ({"redirect_uris": [1]}, "invalid_redirect_uri"),
        ({"redirect_uris": [f"{BACK}/{n}" for n in range(11)]}, "invalid_redirect_uri"),
        ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"grant_types": "authorization_code"}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"client_name": 7}, "invalid_client_metadata"),
        ({"client_name": "mcp  PORTAL"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": ["none"]}, "invalid_client_metadata"),
    ],
)
def test_bad_metadata_is_refused_in_the_words_of_rfc_7591(
    client: As, write: Write, add: Add, metadata: dict[str, Any], error: str
) -> None:
    add()
    for path in ("/guarded/register", "/register"):
        answer = client(None).post(path, metadata)
        assert (answer.status_code, answer.get_json()["error"]) == (400, error)
    assert client("ada").post(f"{BASE}/register", metadata).get_json()["error"] == error
    with write() as session:
        assert session.scalar(select(McpClient)) is None


def test_a_name_is_one_line_of_visible_characters(client: As, write: Write, add: Add) -> None:
    """R-OAUTH-33."""
    add()
    name = "\u202eCla\u200bude\n\tCode\u2066" + "x" * 200
    body = (
        client(None)
        .post("/guarded/register", {"client_name": name, "redirect_uris": [BACK]})
        .get_json()
    )
    assert body["client_name"] == ("Cla ude Code " + "x" * 200)[:80]


def test_metadata_are_16_kib_of_json_or_a_form(client: As, add: Add) -> None:
    add()
    assert client(None).post("/register", {"x": "y" * 17_000}).status_code == 413
    assert (
        client(None)
        .ask("POST", "/register", data=b"{", content_type="application/json")
        .status_code
        == 422
    )
    assert (
        client(None).ask("POST", "/register", data=b"x", content_type="text/plain").status_code
        == 415
    )
    form = {"client_name": "Form", "redirect_uris": [BACK, f"{BACK}/2"]}
    answer = client(None).ask("POST", "/register", data=form)
    assert answer.get_json()["redirect_uris"] == form["redirect_uris"]


def test_registrations_are_counted_by_address(client: As, add: Add) -> None:
    """R-OAUTH-32."""
    add()
    said = [{"client_name": f"client {number}", "redirect_uris": [BACK]} for number in range(31)]
    statuses = [client(None).post("/guarded/register", body).status_code for body in said]
    assert statuses == [201] * 30 + [429]


def test_oau_36_40_41_43_an_admins_registration_reaches_the_upstream_once_and_is_kept(
    client: As, write: Write, add: Add, recording_as: RecordingServer
) -> None:
    add(credentials=None, registration_url=recording_as.endpoint("register"))
    wishes = {
        "client_name": "My App",
        "grant_types": ["authorization_code"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_post",
        "redirect_uris": [BACK],
    }
    answer = client("ada").post(f"{BASE}/register", wishes)
    assert answer.status_code == 200
    sent = recording_as.last("register").json
    assert sent["redirect_uris"] == [f"{PUBLIC}/oauth/callback"]
    assert {name: sent[name] for name in wishes if name != "redirect_uris"} == {
        name: value for name, value in wishes.items() if name != "redirect_uris"
    }
    body = answer.get_json()
    assert (body["client_id"], body["redirect_uris"]) == ("registered-1", [BACK])
    assert "registered-secret" not in answer.get_data(as_text=True)
    with write() as session:
        kept = session.scalars(select(OAuthClientRegistration)).one()
        assert (kept.server_id, kept.client_id, kept.redirect_uri) == (
            "id-guarded",
            "registered-1",
            f"{PUBLIC}/oauth/callback",
        )
        assert session.get(ServerSecret, ("id-guarded", "token_url", "")) is not None  # OAU-42
    for name in ("ada", "vera"):
        again = client(name).post(f"{BASE}/register", wishes)
        assert again.get_json()["client_id"].startswith("mcp-")
    assert len(recording_as.seen("register")) == 1
    assert departed(client("ada"))["client_id"] == "registered-1"
    with write() as session:
        session.execute(
            update(OAuthClientRegistration).values(
                redirect_uri="https://old.example/oauth/callback"
            )
        )
    client("vera").post(f"{BASE}/register", wishes)
    assert len(recording_as.seen("register")) == 1, "only an Admin registers anew"
    assert client("ada").post(f"{BASE}/register", wishes).get_json()["client_id"] == "registered-2"


def test_oau_38_without_a_registration_url_there_is_a_placeholder(
    client: As, add: Add, recording_as: RecordingServer
) -> None:
    add(credentials=None)
    body = client("ada").post(f"{BASE}/register", {"client_name": "X"}).get_json()
    assert (body["client_id"], body["redirect_uris"]) == ("guarded", [f"{PUBLIC}/callback"])
    assert recording_as.seen("register") == []
    recording_as.metadata = recording_as.resource_metadata = None
    add("bare", authorization_url=None, token_url=None)
    answer = client("ada").post("/v1/mcp/server/oauth/id-bare/register", {"client_name": "X"})
    assert (answer.status_code, answer.get_json()["error"]) == (400, "no_authorization_server")


def test_oau_66_at_the_root_there_is_a_placeholder_where_no_server_uses_oauth(client: As) -> None:
    body = client(None).post("/register", {"client_name": "X"}).get_json()
    assert body["client_id"]
    assert body["redirect_uris"] == [f"{PUBLIC}/callback"]


# Documents


ADDRESSES = ("/gh/mcp", "/mcp/gh", "/nowhere/mcp", "/mcp/nowhere", "/mcp", "/toolset/any/mcp")


@pytest.mark.parametrize("path", ADDRESSES)
def test_metadata_of_the_gateway_lead_to_the_portal_whether_a_server_is_there_or_not(
    client: As, add: Add, path: str
) -> None:
    add(alias="gh")
    resource = client(None).get(f"/.well-known/oauth-protected-resource{path}")
    assert resource.get_json() == {
        "resource": f"{PUBLIC}{path}",
        "authorization_servers": [PUBLIC],
        "scopes_supported": [],
        "bearer_methods_supported": ["header"],
    }


def test_the_document_of_the_gateways_authorization_server(client: As) -> None:
    answer = client(None).get("/.well-known/oauth-authorization-server")
    document = answer.get_json()
    assert document["issuer"] == PUBLIC
    ends = {
        "authorization_endpoint": "authorize",
        "token_endpoint": "token",
        "registration_endpoint": "register",
        "revocation_endpoint": "revoke",
    }
    assert {name: document[name] for name in ends} == {
        name: f"{PUBLIC}/oauth/{end}" for name, end in ends.items()
    }
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["token_endpoint_auth_methods_supported"] == ["none"]
    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["client_id_metadata_document_supported"] is True
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_r_oauth_01_02_the_documents_of_a_server_that_delegates(client: As, add: Add) -> None:
    add(alias="gh", delegate_auth_to_upstream=True)
    resource = client(None).get("/.well-known/oauth-protected-resource/gh/mcp")
    assert resource.get_json() == {
        "resource": f"{PUBLIC}/gh/mcp",
        "authorization_servers": [f"{PUBLIC}/gh"],
        "scopes_supported": [],
        "bearer_methods_supported": ["header"],
        "resource_name": "guarded",
    }
    below = client(None).get("/.well-known/oauth-protected-resource/mcp/gh").get_json()
    assert below == {**resource.get_json(), "resource": f"{PUBLIC}/mcp/gh"}
    server = client(None).get("/.well-known/oauth-authorization-server/gh")
    document = server.get_json()
    assert document["issuer"] == resource.get_json()["authorization_servers"][0]  # OAU-65
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["scopes_supported"] == []  # OAU-64
    for name in ("authorization", "token", "registration"):
        end = {"authorization": "authorize", "token": "token", "registration": "register"}[name]
        assert document[f"{name}_endpoint"] == f"{PUBLIC}/gh/{end}"
    assert server.headers["Access-Control-Allow-Origin"] == "*"
    assert "stored-id" not in server.get_data(as_text=True)


def test_oau_62_65_the_only_server_is_meant_at_the_root_by_those_who_are_known(
    client: As, add: Add
) -> None:
    add(credentials={"client_id": "stored-id", "scopes": ["one"]})
    resource = client(None).get("/.well-known/oauth-protected-resource").get_json()
    document = client(None).get("/.well-known/oauth-authorization-server").get_json()
    assert resource["authorization_servers"] == [document["issuer"]] == [PUBLIC]
    assert document["scopes_supported"] == [], "strangers do not learn which server is there"
    assert document["token_endpoint"] == f"{PUBLIC}/oauth/token"
    assert client(None).ask("POST", "/token", data={"grant_type": "x"}).status_code == 401
    assert client("ada").get("/authorize", query_string=ASKED).status_code == 307
    assert (
        client("ada").ask("POST", "/token", data={"grant_type": "x"}).get_json()["error"]
        == "unsupported_grant_type"
    )
    add("second")
    assert client("ada").get("/authorize", query_string=ASKED).status_code == 404
    assert client("ada").ask("POST", "/token", data={"grant_type": "x"}).status_code == 404


def test_servers_that_delegate_or_pass_sign_in_through_tell_their_scopes(
    client: As, add: Add
) -> None:
    for name, how in (("open", "delegate_auth_to_upstream"), ("through", "oauth_passthrough")):
        add(name, **{how: True, "credentials": {"client_id": "stored-id", "scopes": ["one"]}})
        resource = client(None).get(f"/.well-known/oauth-protected-resource/{name}/mcp").get_json()
        assert (resource["scopes_supported"], resource["resource_name"]) == (["one"], name)
        document = client(None).get(f"/.well-known/oauth-authorization-server/{name}").get_json()
        assert document["scopes_supported"] == ["one"]


def test_documents_are_the_same_whoever_asks(client: As, add: Add) -> None:
    add()
    path = "/.well-known/oauth-authorization-server/guarded"
    for headers in (
        {"Authorization": "Bearer sk-wrong"},
        {"X-API-Key": "sk-wrong"},
        {"Authorization": "Basic eDp5"},
    ):
        assert client(None).get(path, headers=headers).status_code == 200


def test_a_401_for_a_missing_connection_leads_to_the_servers_metadata(client: As, add: Add) -> None:
    add()
    call = {"server_id": "id-guarded", "name": "whoami", "arguments": {}}
    answer = client("ada").post("/v1/mcp/tools/call", call)
    assert answer.status_code == 401
    link = answer.headers["WWW-Authenticate"].split('"')[1]
    assert link == f"{PUBLIC}/.well-known/oauth-protected-resource/id-guarded/mcp"
    assert (
        client(None).get(link.removeprefix(PUBLIC)).get_json()["resource"]
        == f"{PUBLIC}/id-guarded/mcp"
    )
