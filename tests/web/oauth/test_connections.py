"""Connecting to OAuth servers in the browser, with the official SDK's authorization server on the
other side."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from portal.store.database import Database
from portal.store.models import AuditEvent, UserCredential
from tests.conftest import Client, Write
from tests.support.connecting import at_provider, come_back, connect, depart
from tests.support.html import filled, parse
from tests.support.oauth_peers import ProtectedServer

SignedIn = Callable[[str], Client]
As = Callable[[str | None], Client]


def call(client: Client, server_id: str, tool: str = "whoami", **arguments: Any) -> Any:
    """Call a tool over the API."""
    return client.post(
        "/v1/mcp/tools/call", {"server_id": server_id, "name": tool, "arguments": arguments}
    )


def badge(client: Client, server_id: str) -> str:
    """What the grid says about a server to its viewer."""
    return str(parse(client.get("/servers")).find(id=f"server-{server_id}").text)


def test_connect_and_call_a_tool_as_oneself(
    signed_in: SignedIn, client: As, guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    """Discovery from the 401, registration, PKCE, the token stored: then tools answer as the person
    who connected."""
    refused = call(client("mel"), guarded)
    assert refused.status_code == 401
    assert refused.json["detail"]["error"] == "sign_in_needed"
    assert refused.json["detail"]["server_id"] == guarded
    assert refused.json["detail"]["connect_url"].endswith(f"/credentials/{guarded}")
    assert refused.headers["WWW-Authenticate"].startswith("Bearer resource_metadata=")
    protected_mcp_server.configure(user="melissa")
    page = connect(signed_in("mel"), guarded)
    assert "Connected to guarded" in page.h1.text, page.main.text
    assert "Connection successful, 3 tools" in page.text
    assert '"melissa"' in str(call(client("mel"), guarded).json)
    assert call(client("otto"), guarded).status_code == 401, "nobody else is connected"
    names = {tool["name"] for tool in client("mel").get("/v1/mcp/tools").json["tools"]}
    assert {"guarded-whoami", "guarded-echo"} <= names
    assert client("otto").get("/v1/mcp/tools").json["tools"] == []


def test_ui_67_the_portal_registers_once_for_everybody(
    signed_in: SignedIn, guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    for name in ("mel", "otto", "mel"):
        connect(signed_in(name), guarded)
    assert protected_mcp_server.counters().register == 1


def test_a_metadata_document_goes_before_registration(
    signed_in: SignedIn, guarded: str, app: Flask, protected_mcp_server: ProtectedServer
) -> None:
    """Where the provider takes one and can fetch it, the portal is the client that its document
    describes."""
    protected_mcp_server.configure(client_documents=True)
    address = depart(signed_in("mel"), guarded)
    assert "client_id=http%3A%2F%2F127.0.0.1%3A8000%2F.well-known%2Foauth-client&" in address
    document = app.test_client().get("/.well-known/oauth-client")
    assert document.json == {
        "client_id": "http://127.0.0.1:8000/.well-known/oauth-client",
        "client_name": "MCP Portal",
        "client_uri": "http://127.0.0.1:8000",
        "redirect_uris": ["http://127.0.0.1:8000/oauth/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "application_type": "web",
        "token_endpoint_auth_method": "none",
    }
    assert protected_mcp_server.counters().register == 0


def test_pages_tell_how_the_connection_stands(
    signed_in: SignedIn, client: As, guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    """Grid, overview and counter: needed, connected, expired; each with what to do."""
    mel = signed_in("mel")
    assert "Sign-in needed" in badge(mel, guarded)
    assert "0 of 1" in parse(mel.get("/credentials")).text
    assert "guarded" in parse(mel.get("/servers?needs=me")).main.text
    connect(mel, guarded)
    assert "Connected" in badge(mel, guarded)
    assert "1 of 1" in parse(mel.get("/credentials")).text
    assert "No matching servers" in parse(mel.get("/servers?needs=me")).main.text
    protected_mcp_server.revoke_all()
    assert call(client("mel"), guarded).status_code == 401
    assert "Sign-in expired" in badge(mel, guarded)
    assert "0 of 1" in parse(mel.get("/credentials")).text
    assert "guarded" in parse(mel.get("/servers?needs=me")).main.text
    page = parse(mel.get(f"/credentials/{guarded}"))
    assert (
        page.find("button", string=lambda t: t and "Connect again" in t)
        or "Connect again" in page.main.text
    )


def test_ui_49_51_the_tools_tab_asks_to_connect_and_only_then_asks_the_server(
    signed_in: SignedIn, guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    mel = signed_in("mel")
    tab = f"/servers/{guarded}/tools?now=1"
    gate = parse(mel.get(tab))
    assert gate.select_one(f'a[href^="/credentials/{guarded}/connect"]')
    assert protected_mcp_server.counters().unauthorized == 0
    connect(mel, guarded)
    assert "whoami" in parse(mel.get(tab)).text
    protected_mcp_server.expire_access_tokens()
    assert "whoami" in parse(mel.get(tab)).text  # no gate: the list renews
    protected_mcp_server.revoke_all()
    assert parse(mel.get(tab)).select_one(f'a[href^="/credentials/{guarded}/connect"]')


def test_an_expired_token_is_renewed_once_on_a_401(
    signed_in: SignedIn, client: As, guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    connect(signed_in("mel"), guarded)
    protected_mcp_server.expire_access_tokens()
    assert call(client("mel"), guarded).status_code == 200
    assert call(client("mel"), guarded).status_code == 200
    counters = protected_mcp_server.counters()
    assert (counters.refresh_grants, counters.reused_refresh) == (1, 0)


def test_a_short_token_is_renewed_before_it_is_sent(
    signed_in: SignedIn, client: As, guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    """UOC-16: with 30 s left it counts as expired for use. One that never lives longer is used for
    half its life, and not renewed with each call; the upstream sees no stale token."""
    protected_mcp_server.configure(access_seconds=30)
    connect(signed_in("mel"), guarded)
    protected_mcp_server.configure(access_seconds=3600)
    before = protected_mcp_server.counters()
    for _ in range(3):
        assert call(client("mel"), guarded).status_code == 200
    after = protected_mcp_server.counters()
    assert before.refresh_grants == 1, (
        "the test on the result page renewed it already, and was not caught in a loop"
    )
    assert after.refresh_grants == 1
    assert after.unauthorized == before.unauthorized
    assert after.reused_refresh == 0


def test_more_rights_are_asked_for_and_given(
    signed_in: SignedIn, client: As, guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    """Step-up: a 403 insufficient_scope offers to connect again with all scopes; the other tools
    still work."""
    mel = signed_in("mel")
    connect(mel, guarded)
    refused = call(client("mel"), guarded, "admin_note")
    assert refused.status_code == 401
    assert "needs more rights than you gave it (" in refused.json["detail"]["message"]
    assert "admin" in refused.json["detail"]["message"]
    assert call(client("mel"), guarded).status_code == 200
    assert "More permissions required" in badge(mel, guarded)
    page = connect(mel, guarded)
    assert {code.text for code in page.main.find_all("code")} >= {"mcp", "admin"}
    assert call(client("mel"), guarded, "admin_note").status_code == 200
    assert "Connected" in badge(mel, guarded)


def test_disconnecting_revokes_upstream(
    signed_in: SignedIn,
    client: As,
    guarded: str,
    protected_mcp_server: ProtectedServer,
    database: Database,
) -> None:
    """RFC 7009, and what happened is said; the tokens are gone on both sides."""
    mel = signed_in("mel")
    connect(mel, guarded)
    form = parse(mel.get(f"/credentials/{guarded}")).find(
        "button", formaction=f"/credentials/{guarded}/disconnect"
    )
    answer = mel.post(f"/credentials/{guarded}/disconnect", data=filled(form.find_parent("form")))
    assert answer.status_code == 303
    said = parse(mel.get(answer.headers["Location"])).find(id="toasts").text
    assert "The provider revoked it as well." in said, said
    counters = protected_mcp_server.counters()
    assert counters.revocations >= 1
    assert (counters.live_access, counters.live_refresh) == (0, 0)
    assert call(client("mel"), guarded).status_code == 401
    with database.session() as session:
        assert session.query(UserCredential).count() == 0
        assert {e.action for e in session.query(AuditEvent)} >= {"connected", "disconnected"}
    again = mel.post(f"/credentials/{guarded}/disconnect", data=filled(form.find_parent("form")))
    assert again.status_code == 303, "disconnecting twice is fine"


def test_a_provider_that_is_gone_does_not_keep_a_connection(
    signed_in: SignedIn, write: Write, guarded: str
) -> None:
    """R-OAUTH-50: deleted here regardless, and said."""
    mel = signed_in("mel")
    connect(mel, guarded)
    form = parse(mel.get(f"/credentials/{guarded}")).find(
        "button", formaction=f"/credentials/{guarded}/disconnect"
    )
    with write() as session:
        from portal.store.oauth_tables import ServerAuthorization

        known = session.get(ServerAuthorization, guarded)
        assert known is not None
        known.found = {
            **known.found,
            "server": {**known.found["server"], "revocation_endpoint": "http://127.0.0.1:9/"},
        }
    answer = mel.post(f"/credentials/{guarded}/disconnect", data=filled(form.find_parent("form")))
    assert "did not confirm" in parse(mel.get(answer.headers["Location"])).text
    assert "Sign-in needed" in badge(mel, guarded)


def test_the_person_may_say_no(
    signed_in: SignedIn, guarded: str, protected_mcp_server: ProtectedServer
) -> None:
    protected_mcp_server.configure(consent="deny")
    mel = signed_in("mel")
    page = parse(come_back(mel, at_provider(depart(mel, guarded))))
    assert page.h1.text == "Access declined"
    assert "Sign-in needed" in badge(mel, guarded)


def test_a_way_back_is_used_once(signed_in: SignedIn, guarded: str) -> None:
    """R-OAUTH-18: the second time it is a page that helps, with status 400, and the connection
    stands."""
    mel = signed_in("mel")
    path = at_provider(depart(mel, guarded))
    assert "Connected" in parse(come_back(mel, path)).h1.text
    page = parse(mel.get(path), 400)
    assert "was already used" in page.text
    assert "Connected" in badge(mel, guarded)


def test_another_browser_brings_nothing_in(signed_in: SignedIn, guarded: str) -> None:
    """The state is bound to the browser: a link that somebody was sent connects neither them nor
    the sender."""
    mel = signed_in("mel")
    also_mel = signed_in("mel")
    otto = signed_in("otto")
    path = at_provider(depart(mel, guarded))
    for stranger in (also_mel, otto):
        assert "started in a different browser" in parse(stranger.get(path), 400).text
    assert "Connected" in parse(come_back(mel, path)).h1.text, (
        "and it did not end the sign-in of who began it"
    )


def test_somebody_else_in_the_same_browser_is_not_connected(
    app: Flask, signed_in: SignedIn, guarded: str
) -> None:
    """R-OAUTH-30: the person who began it has to be the one who completes it."""
    mel = signed_in("mel")
    path = at_provider(depart(mel, guarded))
    token = parse(mel.get("/profile")).find("input", attrs={"name": "csrf_token"})["value"]
    assert mel.post("/logout", data={"csrf_token": token}).status_code == 303
    sign_in_again(mel, "otto")
    assert "Started by another user" in parse(come_back(mel, path)).h1.text
    assert "Sign-in needed" in badge(mel, guarded)
    assert "Sign-in needed" in badge(signed_in("mel"), guarded)


def test_whoever_was_signed_out_meanwhile_is_told(signed_in: SignedIn, guarded: str) -> None:
    """Sign in, see what happened, and go on from there."""
    mel = signed_in("mel")
    path = at_provider(depart(mel, guarded))
    token = parse(mel.get("/profile")).find("input", attrs={"name": "csrf_token"})["value"]
    mel.post("/logout", data={"csrf_token": token})
    answer = mel.get(path)
    assert answer.status_code == 303
    result = answer.headers["Location"]
    assert mel.get(result).headers["Location"].startswith("/login?next=")
    sign_in_again(mel, "mel")
    assert "You were signed out of the portal" in parse(mel.get(result)).h1.text


def sign_in_again(browser: Client, name: str) -> None:
    """Sign in in a browser that keeps its other cookies."""
    form = parse(browser.get("/login")).find("form")
    from tests.support.factories import PASSWORD

    data = filled(form, email=f"{name}@example.com", password=PASSWORD)
    assert browser.post("/login", data=data).status_code == 303


def test_one_goes_on_where_one_was(signed_in: SignedIn, guarded: str) -> None:
    """The playground asks to connect in place, and the result page leads back to it; to no other
    site."""
    mel = signed_in("mel")
    page = parse(mel.get(f"/playground?server={guarded}"))
    form = page.find("form", action=f"/credentials/{guarded}/connect")
    assert form.find("input", attrs={"name": "back"})["value"] == f"/playground?server={guarded}"
    done = connect(mel, guarded, back=f"/playground?server={guarded}")
    assert done.find("a", string="Continue")["href"] == f"/playground?server={guarded}"
    assert "whoami" in parse(mel.get(f"/playground?server={guarded}")).text
    elsewhere = connect(mel, guarded, back="//evil.example/")
    assert "evil" not in str(elsewhere.main)


def test_the_users_tab_names_who_is_connected(signed_in: SignedIn, guarded: str) -> None:
    connect(signed_in("mel"), guarded)
    row = parse(signed_in("vera").get(f"/servers/{guarded}/credentials")).find("tbody").text
    assert "Mel" in row
    assert "Connected" in row


@pytest.mark.parametrize("path", ["/oauth/callback", "/callback"])
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "invalid_request"),
        ("?code=abc", "invalid_request"),
        ("?state=unknown&code=abc", "was already used"),
        ("?state=unknown&error=access_denied&error_description=%3Cb%3Eno%3C/b%3E", "access_denied"),
        ("?error=access_denied&error_description=%3Cb%3Eno%3C/b%3E", "<b>no</b>"),
        ("?state=a&state=b&code=c", "is repeated"),
        ("?code=a&code=b", "is repeated"),
        ("?state=%00", "NUL"),
        ("?state=%ff%fe&code=%ed%a0%80", "was already used"),
        ("?state=" + "x" * 9000, "too long"),
    ],
)
def test_what_is_no_way_back_is_a_page(app: Flask, path: str, query: str, said: str) -> None:
    """OAU-81, OAU-85, OAU-86: 400 with words, never a redirect, never markup of others."""
    page = parse(app.test_client().get(path + query), 400)
    assert said in page.text
    assert "<b>no" not in str(page)


def test_no_token_is_where_it_could_be_read(
    signed_in: SignedIn,
    client: As,
    guarded: str,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    protected_mcp_server: ProtectedServer,
) -> None:
    """Not in pages, answers, logs, the audit trail or the database in the clear; nor the code, nor
    the verifier."""
    caplog.set_level("DEBUG")
    mel = signed_in("mel")
    seen = []
    path = at_provider(depart(mel, guarded))
    code = path.partition("code=")[2].partition("&")[0]
    seen.append(come_back(mel, path).get_data(as_text=True))
    from portal.services.oauth_client.user_tokens import own_token
    from tests.services.oauth_client.test_user_tokens import server_of

    with database.session() as session:
        secret = own_token(session, server_of(session, guarded), "mel")
        held = session.query(UserCredential).one()
        assert secret.encode() not in held.sealed
        events = [str(event.details) for event in session.query(AuditEvent)]
    seen += events
    seen += [
        mel.get(p).get_data(as_text=True)
        for p in ("/credentials", f"/credentials/{guarded}", "/servers")
    ]
    seen += [client("ada").get(f"/v1/mcp/server/{guarded}").get_data(as_text=True), caplog.text]
    seen += [client("mel").get("/v1/mcp/user-credentials").get_data(as_text=True)]
    for text in seen:
        assert secret not in text
        assert code not in text
