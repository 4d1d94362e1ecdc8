"""Bad redirect URIs, states, verifiers and codes: each gets a 400 page or JSON, never a redirect,
never a 500."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask

from portal.domain.principals import OPERATOR
from portal.services import instance_settings
from tests.conftest import Client, Write
from tests.support.oauth.asking import ASKED, BASE, CHALLENGE, VERIFIER, code_for
from tests.support.oauth.recording import RecordingServer

As = Callable[[str | None], Client]
Add = Callable[..., str]
TRUSTED = ["app.example.com", "*.suffix.example"]
REDIRECTS = [
    "https://1.2.3.4/cb",
    "ftp://localhost/cb",
    "https:///no-netloc",
    "http://[not-an-ip]/cb",
    "//localhost/cb",
    "/cb",
    "cb",
    "localhost",
    "localhost:3000/cb",
    "http:/localhost/cb",
    "http:localhost/cb",
    "http://",
    "https://",
    "http:///cb",
    "http://app.example.com/cb",
    "https://app.example.com:8443/cb",
    "https://suffix.example/cb",
    "https://evilsuffix.example/cb",
    "https://app.example.com.evil.example/cb",
    "https://evil.example/app.example.com",
    "https://app.example.com@evil.example/cb",
    "https://user:pass@app.example.com/cb",
    "http://a@localhost:3000/cb",
    "http://localhost:3000/cb#f",
    "http://localhost:3000/cb#",
    "http://localhost:0/cb",
    "http://localhost:65536/cb",
    "http://localhost:-1/cb",
    "http://localhost:x/cb",
    "http://localhost:/cb",
    "http://localhost\\@evil.example/cb",
    "http://localhost:3000\\cb",
    "http://localhost.evil.example/cb",
    "http://127.0.0.1.evil.example/cb",
    "http://0.0.0.0/cb",
    "http://169.254.169.254/cb",
    "http://10.0.0.1/cb",
    "http://192.168.1.1/cb",
    "http://[::2]/cb",
    "http://[fe80::1]/cb",
    "http://[::ffff:1.2.3.4]/cb",
    "http://2130706433.evil/cb",
    "http://128.0.0.1/cb",
    "http://localhost:3000/../cb",
    "http://localhost:3000/%2e%2e/cb",
    "http://localhost:3000/a/./b",
    "http://localhost:3000/c b",
    "http://localhost:3000/\tcb",
    "http://local host/cb",
    "http://localhost:3000/\r\nX-Evil:1",
    "http://löcalhost/cb",
    "http://localhost:3000/ü",
    " http://localhost/cb",
    "http://localhost/cb ",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "blob:http://localhost/x",
    "vbscript:x",
    "about:blank",
    "view-source:http://localhost",
    "intent://localhost#x",
    "myapp://callback",
    "cursor://evil",
    "cursor://anysphere.cursor-mcp/oauth/callback/../x",
    "CURSOR://anysphere.cursor-mcp/oauth/callback",
    "com.example.app:/cb",
    "urn:ietf:wg:oauth:2.0:oob",
    "http://localhost/" + "a" * 2_050,
    "https://xn--/cb",
    "https://app.example.com%2f@evil.example/cb",
    "https://app.example.com%00.evil.example/cb",
    "http://localhost%2eevil.example/cb",
    "https://evil.example",
    "https://127.0.0.1:8000.evil.example/",
    "http://127.0.0.1:8001.evil.example/cb",
    "http://evil.example:8000/cb",
    "http://[::1/cb",
    "http://::1]/cb",
    "http://[/cb",
    "%",
    "http://%",
    "http://🦊/cb",
    "?",
    "#",
]
PKCE: list[dict[str, str | None]] = [
    {"code_challenge": None},
    {"code_challenge": ""},
    {"code_challenge": CHALLENGE[:-1]},
    {"code_challenge": CHALLENGE + "A"},
    {"code_challenge": CHALLENGE[:-1] + "="},
    {"code_challenge": CHALLENGE[:-1] + "+"},
    {"code_challenge": CHALLENGE[:-1] + "/"},
    {"code_challenge": CHALLENGE[:-1] + "ä"},
    {"code_challenge": CHALLENGE[:-1] + "\n"},
    {"code_challenge_method": None},
    {"code_challenge_method": "plain"},
    {"code_challenge_method": "s256"},
    {"code_challenge_method": "S512"},
    {"code_challenge_method": ""},
]
OTHERS: list[dict[str, str | None]] = [
    {"response_type": "token"},
    {"response_type": "code token"},
    {"response_type": "id_token"},
    {"state": "s" * 2_001},
    {"state": "a\r\nSet-Cookie: x=y"},
    {"state": "\u202e"},
    {"client_id": "c" * 513},
    {"client_id": "a\nb"},
    {"client_id": "ü"},
    {"scope": 'a"b'},
    {"scope": "a\\b"},
    {"scope": "ü"},
    {"scope": "a\tb"},
    {"scope": " ".join(f"s{n}" for n in range(51))},
    {"resource": "https://other.example/mcp"},
    {"resource": "x"},
    {"resource": "http://[/"},
    {"request": "eyJ"},
    {"request_uri": "https://evil.example/r"},
]
STATES = [
    "",
    "x",
    "x" * 43,
    "x" * 9_000,
    "'; drop table oauth_flows; --",
    "%",
    "\r\nSet-Cookie: a=b",
    "ü" * 20,
    "🦊",
    "../../etc",
    "<script>alert(1)</script>",
    "null",
    "0",
    "undefined",
    "client-state",
    "=" * 44,
    "\u202e",
]
VERIFIERS = [
    None,
    "",
    "v" * 42,
    "v" * 129,
    "v" * 63 + "!",
    "v" * 63 + " ",
    "v" * 63 + "ü",
    "w" * 64,
    CHALLENGE,
    "\n" * 43,
]
CODES = [
    "",
    "x",
    "x" * 8_193,
    "x y",
    "x\r\ny",
    "ü",
    "🦊",
    "code-0",
    "../code",
    "'or 1=1--",
    "null",
    "\u202e",
]


@pytest.fixture
def guarded(add: Add, write: Write) -> None:
    add(delegate_auth_to_upstream=True)
    with write() as session:
        instance_settings.update_preferences(
            session, OPERATOR, {"trusted_redirect_origins": TRUSTED}
        )


def refused(answer: Any, status: int = 400) -> None:
    assert answer.status_code == status, (answer.status_code, answer.headers.get("Location"))
    assert "Location" not in answer.headers
    assert answer.mimetype in ("application/json", "text/html")
    text = answer.get_data(as_text=True)
    assert not any(word in text for word in ("Traceback", "SECRET", "<script>alert"))


def asked(asking: Client, path: str, **changed: str | None) -> Any:
    query = {name: value for name, value in {**ASKED, **changed}.items() if value is not None}
    return asking.get(path, query_string=urlencode(query, errors="surrogatepass"))


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("uri", REDIRECTS, ids=range(len(REDIRECTS)))
def test_bad_redirect_uris(client: As, recording_as: RecordingServer, uri: str) -> None:
    """OAU-15, OAU-72, OAU-77, OAU-78 and R-OAUTH-06, for an Admin's key, a stranger, and a page."""
    refused(asked(client("ada"), f"{BASE}/authorize", redirect_uri=uri))
    refused(asked(client(None), "/guarded/authorize", redirect_uri=uri))
    page = client(None).get(
        "/authorize", query_string={**ASKED, "redirect_uri": uri}, headers={"Accept": "text/html"}
    )
    refused(page)
    assert page.mimetype == "text/html"
    assert recording_as.requests == []


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("changed", [*PKCE, *OTHERS], ids=str)
def test_bad_authorization_requests(client: As, changed: dict[str, str | None]) -> None:
    refused(asked(client("ada"), f"{BASE}/authorize", **changed))
    refused(asked(client(None), "/guarded/authorize", **changed))


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("name", sorted(ASKED))
def test_parameters_that_come_twice(client: As, name: str) -> None:
    """R-OAUTH-07."""
    query = urlencode([*ASKED.items(), (name, ASKED[name])])
    refused(client("ada").get(f"{BASE}/authorize?{query}"))
    refused(client(None).get(f"/guarded/authorize?{query}"))


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("state", STATES, ids=range(len(STATES)))
def test_bad_states(app: Flask, state: str) -> None:
    for path in ("/oauth/callback", "/callback"):
        for more in (
            {"code": "abc"},
            {"error": "access_denied", "error_description": "<script>alert(1)</script>"},
            {},
        ):
            refused(app.test_client().get(path, query_string={"state": state, **more}))
    refused(
        app.test_client().get(
            f"/oauth/callback?{urlencode([('state', state), ('state', state), ('code', 'a')])}"
        )
    )


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("verifier", VERIFIERS, ids=range(len(VERIFIERS)))
def test_bad_verifiers_leave_the_code_alone(
    client: As, app: Flask, recording_as: RecordingServer, verifier: str | None
) -> None:
    code = code_for(client("ada"))
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": "https://client.example/mcp.json",
        "code_verifier": verifier,
    }
    wrong = {name: value for name, value in form.items() if value is not None}
    for path in (f"{BASE}/token", "/guarded/token"):
        refused(client("ada").ask("POST", path, data=wrong))
        refused(client(None).ask("POST", path, data=wrong))
    assert recording_as.seen("token") == []
    assert (
        client("ada")
        .ask("POST", f"{BASE}/token", data={**wrong, "code_verifier": VERIFIER})
        .status_code
        == 200
    )


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("code", CODES, ids=range(len(CODES)))
def test_bad_codes(client: As, recording_as: RecordingServer, code: str) -> None:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": "https://client.example/mcp.json",
        "code_verifier": VERIFIER,
    }
    for path in (f"{BASE}/token", "/guarded/token", "/token"):
        refused(client("ada").ask("POST", path, data=form))
        refused(client(None).ask("POST", path, data=form))
        refused(
            client(None).ask(
                "POST",
                path,
                data=urlencode([*form.items(), ("code", "again")]),
                content_type="application/x-www-form-urlencoded",
            )
        )
    assert recording_as.seen("token") == []


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize(
    "flow", ["x", "x" * 43, "x" * 3_000, "%F0%9F%A6%8A", "'%20or%201=1--", "%0a"]
)
def test_bad_flows_on_the_consent_page(signed_in: Callable[[str], Client], flow: str) -> None:
    ada = signed_in("ada").with_csrf()
    refused(ada.get(f"/oauth/consent/{flow}"))
    refused(ada.ask("POST", f"/oauth/consent/{flow}", data={"decision": "allow"}))


def test_the_table_is_long_enough() -> None:
    assert (
        len(REDIRECTS) + len(PKCE) + len(OTHERS) + len(STATES) + len(VERIFIERS) + len(CODES) >= 100
    )
