"""The broker for MCP clients: what it sends to the upstream, and who may ask (OAU by number, rule
8)."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask

from portal.domain.principals import OPERATOR
from portal.services import instance_settings
from portal.services.access import teams
from portal.store.models import Server
from tests.conftest import CREW, Client, Write
from tests.support.factories import make_group
from tests.support.oauth.asking import (
    ASKED,
    BASE,
    CALLBACK,
    CHALLENGE,
    PUBLIC,
    STORED,
    authorize,
    came_back,
    decided,
    departed,
    onward,
    query_of,
    redeem,
)
from tests.support.oauth.recording import RecordingServer

As = Callable[[str | None], Client]
SignedIn = Callable[[str], Client]


# Authorize


def test_oau_01_04_69_an_admins_request_goes_to_the_upstream_with_all_it_carries(
    client: As, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add()
    answer = authorize(client("ada"), scope="a b")
    assert answer.status_code == 307
    assert answer.location.startswith(recording_as.endpoint("authorize") + "?")
    sent = query_of(answer.location)
    state = sent.pop("state")
    assert sent == {
        "response_type": "code",
        "client_id": "stored-id",
        "redirect_uri": CALLBACK,
        "scope": "a b",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "resource": recording_as.url,
    }
    assert len(state) >= 43
    assert "client-state" not in state


def test_oau_20_to_23_the_public_url_is_the_operators_word_whatever_proxies_say(
    client: As, add: Callable[..., str], write: Write
) -> None:
    """It is always set, so no header of a proxy, trusted or not, makes another callback of it."""
    add()
    with write() as session:
        instance_settings.update_preferences(
            session, OPERATOR, {"trusted_proxies": ["127.0.0.0/8"]}
        )
    forwarded = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Port": "8443",
    }
    answer = client("ada").get(f"{BASE}/authorize", query_string=ASKED, headers=forwarded)
    assert query_of(answer.location)["redirect_uri"] == CALLBACK


@pytest.mark.parametrize(
    ("changed", "configured", "expected"),
    [
        ({"response_type": None}, {}, {"response_type": "code"}),  # OAU-02
        ({}, {"scopes": ["one", "two"]}, {"scope": "one two"}),  # OAU-05
        ({"scope": "three"}, {"scopes": ["one", "two"]}, {"scope": "three"}),  # OAU-06
        ({"client_id": None}, {}, {"client_id": "stored-id"}),
    ],
)
def test_oau_02_05_06_what_is_left_out_is_filled_in(
    client: As,
    add: Callable[..., str],
    changed: dict[str, str | None],
    configured: dict[str, Any],
    expected: dict[str, str],
) -> None:
    add(credentials={**STORED, **configured})
    assert departed(client("ada"), **changed).items() >= expected.items()


def test_oau_03_the_query_of_the_authorization_url_is_kept(
    client: As, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add(authorization_url=recording_as.endpoint("authorize") + "?tenant=system&scope=old")
    answer = authorize(client("ada"), scope="new")
    assert answer.location.count("?") == 1
    assert query_of(answer.location).items() >= {"tenant": "system", "scope": "new"}.items()


def test_oau_09_no_client_id_anywhere_is_told_as_such(client: As, add: Callable[..., str]) -> None:
    add(credentials=None)
    answer = authorize(client("ada"), client_id=None)
    assert (answer.status_code, answer.get_json()["detail"]["error"]) == (400, "missing_client_id")
    answer = redeem(client("ada"), "code", client_id=None)
    assert (answer.status_code, answer.get_json()["error"]) == (400, "missing_client_id")
    assert answer.get_json()["detail"]["error"] == "missing_client_id"
    answer = authorize(client("ada"))
    assert (answer.status_code, answer.get_json()["detail"]["error"]) == (400, "missing_client_id")


def test_oau_10_a_redirect_uri_and_a_grant_type_are_required(
    client: As, add: Callable[..., str]
) -> None:
    add()
    answer = authorize(client("ada"), redirect_uri=None)
    assert (answer.status_code, answer.get_json()["detail"]["field"]) == (422, "redirect_uri")
    answer = redeem(client("ada"), "code", grant_type=None)
    assert (answer.status_code, answer.get_json()["error"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:3000/cb",
        "http://127.0.0.2:3000/cb",
        "http://[0:0:0:0:0:0:0:1]:3000/cb",  # OAU-12
        f"{PUBLIC}/ui/mcp/oauth/callback",  # OAU-13
        "https://app.example.com/cb",
        "https://app.example.com:443/cb",
        "https://a.suffix.example/cb",  # OAU-15, -72
        "https://other.example/cb",
        "cursor://anysphere.cursor-mcp/oauth/callback",  # OAU-76
    ],
)
def test_oau_12_13_15_72_76_where_clients_may_be(
    client: As, write: Write, add: Callable[..., str], uri: str
) -> None:
    add()
    trusted = ["app.example.com", "*.suffix.example", "https://other.example/"]
    with write() as session:
        instance_settings.update_preferences(
            session, OPERATOR, {"trusted_redirect_origins": trusted}
        )
    assert departed(client("ada"), redirect_uri=uri)["redirect_uri"] == CALLBACK


def test_oau_24_a_server_without_oauth_is_told_before_its_client(client: As) -> None:
    answer = authorize(client("ada"), "/v1/mcp/server/oauth/id-notes", client_id=None)
    assert answer.status_code == 400
    assert "does not use OAuth" in answer.get_json()["detail"]["message"]


def test_oau_25_26_no_authorization_url_tells_the_remedy_and_not_the_host(
    client: As, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    recording_as.metadata = recording_as.resource_metadata = None
    add(authorization_url=None, token_url=None)
    answer = authorize(client("ada"))
    detail = answer.get_json()["detail"]
    assert (answer.status_code, detail["error"]) == (400, "no_authorization_server")
    assert "authorization URL and token URL" in detail["message"]
    assert urlsplit(recording_as.url).netloc not in answer.get_data(as_text=True)
    answer = redeem(client("ada"), "code")
    assert (answer.status_code, answer.get_json()["error"]) == (
        400,
        "no_authorization_server",
    )  # OAU-34


def test_the_upstream_is_discovered_and_the_portal_registers_itself_once(
    client: As, add: Callable[..., str], recording_as: RecordingServer
) -> None:
    add(authorization_url=None, token_url=None, credentials=None)
    first = departed(client("ada"))
    second = departed(client("ada"))
    assert first["client_id"] == second["client_id"]
    assert first["client_id"].startswith("registered-")
    assert first["resource"] == recording_as.url
    assert len(recording_as.seen("register")) == 1


# Who may


def test_oau_45_47_48_who_is_let_in(
    client: As, signed_in: SignedIn, write: Write, add: Callable[..., str], app: Flask
) -> None:
    add()
    for base in (BASE, "/v1/mcp/server/oauth/nowhere", "/v1/mcp/server/oauth/id-hidden"):
        for answer in (authorize(client("mel"), base), redeem(client("mel"), "x", base)):
            assert answer.status_code == 403
        assert client("mel").post(f"{base}/register", {}).status_code == 403
        for answer in (authorize(client(None), base), redeem(client(None), "x", base)):
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert client(None).post(f"{base}/register", {}).status_code == 401
    for answer in (
        authorize(client("ada"), "/v1/mcp/server/oauth/nowhere"),
        redeem(client("ada"), "x", "/v1/mcp/server/oauth/nowhere"),
        client("ada").post("/v1/mcp/server/oauth/nowhere/register", {}),
        authorize(client("vera"), "/v1/mcp/server/oauth/nowhere"),
    ):
        assert answer.status_code == 404
    with write() as session:
        group = make_group(session, "oauth", ("id-guarded",))
        teams.change_team(session, OPERATOR, CREW, {}, access_group_ids=[group])
    mel = signed_in("mel")
    answer = authorize(mel)
    assert (answer.status_code, answer.location[:15]) == (307, "/oauth/consent/")
    address = onward(decided(mel._client, answer.location))
    landed = mel.get(came_back(address))
    answer = redeem(mel.with_csrf(), query_of(landed.location)["code"])
    assert (answer.status_code, answer.get_json()["access_token"][:3]) == (200, "at-")
    assert departed(client("mel"))["client_id"] == "stored-id"


def test_a_bad_key_is_refused_whatever_cookie_comes_along(
    signed_in: SignedIn, add: Callable[..., str]
) -> None:
    add()
    ada = signed_in("ada")
    for headers in (
        {"Authorization": "Bearer sk-wrong"},
        {"X-API-Key": "sk-wrong"},
        {"Authorization": "Basic YTpi"},
    ):
        assert ada.get(f"{BASE}/authorize", query_string=ASKED, headers=headers).status_code == 401
        assert ada.post(f"{BASE}/token", headers=headers).get_json()["error"] == "invalid_client"


def test_cky_07_a_browser_without_a_session_signs_in_and_comes_back_to_the_same_request(
    app: Flask, add: Callable[..., str]
) -> None:
    add()
    answer = app.test_client().get(
        f"{BASE}/authorize", query_string=ASKED, headers={"Accept": "text/html,*/*"}
    )
    assert answer.status_code == 303
    parts = urlsplit(answer.location)
    assert parts.path == "/login"
    back = query_of(answer.location)["next"]
    assert urlsplit(back).path == f"{BASE}/authorize"
    assert query_of(back) == ASKED


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, 307),
        ({"delegate_auth_to_upstream": False}, 401),
        ({"oauth2_flow": "client_credentials"}, 401),
        ({"auth_type": "oauth2_token_exchange"}, 401),
        ({"approval_status": "pending_review"}, 401),
        ({"allow_all_keys": True, "delegate_auth_to_upstream": False}, 401),
    ],
)
def test_rule_8_strangers_sign_in_only_where_the_server_leaves_it_to_its_upstream(
    client: As, write: Write, add: Callable[..., str], changed: dict[str, Any], status: int
) -> None:
    add(delegate_auth_to_upstream=True)
    with write() as session:
        row = session.get(Server, "id-guarded")
        for name, value in changed.items():
            setattr(row, name, value)
    assert authorize(client(None)).status_code == status
    assert redeem(client(None), "x").status_code == (400 if status == 307 else 401)
    refreshing = {"grant_type": "refresh_token", "refresh_token": "rt"}
    for form in (refreshing, {"grant_type": "client_credentials"}, {}):
        assert client(None).ask("POST", f"{BASE}/token", data=form).status_code == 401
    assert client(None).post(f"{BASE}/register", {}).status_code == 401


def test_the_address_rule_hides_a_server_from_strangers_outside(
    client: As, add: Callable[..., str]
) -> None:
    add(delegate_auth_to_upstream=True, available_on_public_internet=False)
    outside = {"environ_base": {"REMOTE_ADDR": "203.0.113.9"}}
    assert authorize(client(None)).status_code == 307
    assert client(None).get(f"{BASE}/authorize", query_string=ASKED, **outside).status_code == 401
    here = client(None).get("/.well-known/oauth-protected-resource/guarded/mcp", **outside)
    nowhere = client(None).get("/.well-known/oauth-protected-resource/nowhere/mcp", **outside)
    assert here.status_code == nowhere.status_code == 200
    assert here.get_data(as_text=True).replace("guarded", "nowhere") == nowhere.get_data(
        as_text=True
    )
    inside = client(None).get("/.well-known/oauth-protected-resource/guarded/mcp").get_json()
    assert inside["resource_name"] == "guarded"
