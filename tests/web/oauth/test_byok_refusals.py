"""Bad requests to the pages and the endpoint of keys in a client's flow (behaviours BYK-13, 16,
21)."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select

from portal.domain.principals import OPERATOR
from portal.services.access import users
from portal.services.oauth_broker import byok
from portal.services.servers.grants import ObjectPermission
from portal.store.models import Server, now
from portal.store.oauth_tables import OAuthFlow
from tests.conftest import NOTES, Client, Write
from tests.support.html import filled, parse
from tests.web.oauth.test_byok import (
    BACK,
    KEY,
    OWN,
    PUBLIC,
    VERIFIER,
    As,
    _own,
    challenge,
    code_for,
    form_of,
    held,
    mel,
    redeem,
    request,
)

__all__ = ["_own", "held", "mel"]  # fixtures of theirs


_BAD_REQUESTS: list[dict[str, str | None]] = [
    {"redirect_uri": uri}
    for uri in (
        None,
        "",
        "https://evil.example/cb",
        "http://127.0.0.1.evil.example/",
        "http://evil.example#@127.0.0.1/",
        "http://127.0.0.1@evil.example/",
        "http://user@127.0.0.1:1/",
        "http://127.0.0.1:1/#x",
        "http://127.0.0.1\\@evil/",
        "javascript:alert(1)",
        "data:text/html,x",
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "//127.0.0.1/",
        "/relative",
        "http://",
        "http://128.0.0.1/",
        "http://[::2]/",
        "http://[::ffff:10.0.0.1]/",
        "http://0.0.0.0:1/",
        "http://127.0.0.1:1/\r\nX: y",
        "http://localhost.evil.example/",
        "http://127.0.0.1:0/",
        "ftp://127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:1/../x",
        "http://[::1/",
        "http://127.0.0.1:1/" + "a" * 2_048,
    )
] + [
    {"response_type": None},
    {"response_type": "token"},
    {"response_type": "code token"},
    {"code_challenge_method": "plain"},
    {"code_challenge_method": None},
    {"code_challenge_method": "s256"},
    {"code_challenge": None},
    {"code_challenge": "short"},
    {"code_challenge": "=" * 43},
    {"code_challenge": "a" * 44},
    {"server_id": None},
    {"server_id": "nowhere"},
    {"server_id": NOTES},
    {"server_id": "id-secluded"},
    {"state": "x" * 4_097},
    {"state": "a\x01b"},
    {"client_id": "x" * 513},
    {"client_id": "a\nb"},
    {"server_id": None, "resource": f"{PUBLIC}/own/elsewhere"},
    {"server_id": None, "resource": f"{PUBLIC}/mcp/own/mcp"},
    {"server_id": None, "resource": PUBLIC},
    {"server_id": None, "resource": None},
    {"server_id": None, "resource": "https://evil.example/own/mcp"},
]


@pytest.mark.parametrize(
    "change", _BAD_REQUESTS, ids=lambda change: str(change)[:60].encode("unicode_escape").decode()
)
def test_byk_13_and_16_a_bad_request_gets_a_page_and_is_never_redirected(
    mel: Client, write: Write, change: dict[str, str | None]
) -> None:
    response = mel.get(request(**change))
    assert response.status_code == 400
    assert "Location" not in response.headers
    text = parse(response, 400).text
    assert "secluded" not in text, "a server that one may not use is not named"
    with write() as session:
        assert session.query(OAuthFlow).count() == 0


def test_a_parameter_that_comes_twice_is_refused(mel: Client) -> None:
    assert mel.get(request() + "&redirect_uri=" + BACK).status_code == 400
    assert mel.get(request() + "".join(f"&p{n}=1" for n in range(60))).status_code == 400


_BAD_TOKENS: list[tuple[dict[str, str | None], str]] = [
    ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
    ({"grant_type": "refresh_token"}, "unsupported_grant_type"),
    ({"grant_type": None}, "invalid_request"),
    ({"code": None}, "invalid_request"),
    ({"code": "made-up"}, "invalid_grant"),
    ({"code": "é\x00"}, "invalid_grant"),
    ({"redirect_uri": None}, "invalid_request"),
    ({"redirect_uri": BACK + "/"}, "invalid_grant"),
    ({"redirect_uri": "http://127.0.0.1:3031/callback"}, "invalid_grant"),
    ({"client_id": None}, "invalid_grant"),
    ({"client_id": "cursor"}, "invalid_client"),
    ({"client_id": "https://cursor.example/client.json"}, "invalid_grant"),
    ({"client_id": "é"}, "invalid_client"),
    ({"code_verifier": None}, "invalid_request"),
    ({"code_verifier": "short"}, "invalid_request"),
    ({"code_verifier": challenge()}, "invalid_grant"),
    ({"code_verifier": VERIFIER + "x"}, "invalid_grant"),
    ({"code_verifier": "é" * 43}, "invalid_request"),
    ({"code_verifier": "a" * 129}, "invalid_request"),
    ({"code": "x" * 9_000}, "invalid_request"),
]


def test_byk_21_errors_of_the_token_endpoint_stand_at_the_top(
    mel: Client, client: As, held: Callable[[str], str | None]
) -> None:
    code = code_for(mel)
    stranger = client(None)
    for change, error in _BAD_TOKENS:
        response = redeem(stranger, code, **change)
        assert (response.status_code, response.get_json()["error"]) == (400, error), change
        assert response.headers["Cache-Control"] == "no-store"
    twice = stranger.ask(
        "POST",
        "/oauth/token",
        data=f"grant_type=authorization_code&code={code}&code={code}",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert twice.get_json()["error"] == "invalid_request"
    assert stranger.post("/oauth/token", {"code": code}).status_code == 400, "JSON is no form"
    assert held("mel") is None
    assert redeem(stranger, code).status_code == 200, "what failed used nothing up (BYK-24)"


def test_a_code_is_over_after_two_minutes(mel: Client, client: As, write: Write) -> None:
    code = code_for(mel)
    with write() as session:
        flow = session.scalars(select(OAuthFlow).where(OAuthFlow.kind == byok.CODE)).one()
        assert timedelta(seconds=100) < flow.expires_at - now() <= timedelta(seconds=300)
        flow.expires_at = now()
    assert redeem(client(None), code).get_json()["error"] == "invalid_grant"


def test_a_question_is_no_code_and_a_code_no_question(mel: Client, client: As) -> None:
    form = form_of(mel)
    ticket = form.find("input", attrs={"name": "ticket"})["value"]
    assert redeem(client(None), ticket).get_json()["error"] == "invalid_grant"
    code = code_for(mel)
    sent = {**filled(form, key=KEY, ticket=code), "decision": "allow"}
    assert mel.ask("POST", "/oauth/authorize", data=sent).status_code == 400


def test_what_changed_meanwhile_decides(mel: Client, client: As, write: Write) -> None:
    codes = [code_for(mel) for _ in range(2)]
    with write() as session:
        row = session.get(Server, OWN)
        assert row is not None
        row.is_byok = False
    assert redeem(client(None), codes[0]).get_json()["error"] == "invalid_grant"
    with write() as session:
        row = session.get(Server, OWN)
        assert row is not None
        row.is_byok = True
        users.change_user(session, OPERATOR, "mel", {"is_active": False}, ObjectPermission())
    assert redeem(client(None), codes[1]).get_json()["error"] == "invalid_grant"
