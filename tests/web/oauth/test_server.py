"""An MCP client signs in to the gateway for a person, over the portal's own port: it registers, the
person agrees in a browser and enters what the server needs, and the client gets tokens of the
portal's own."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from sqlalchemy import select, update

from portal.domain.gateway_addresses import read_path
from portal.domain.principals import Principal
from portal.processes.web import do_round
from portal.services.oauth_server import principal_of
from portal.services.secrets.user_values import opened_values
from portal.settings import Settings
from portal.store.database import Database
from portal.store.models import AuditEvent, Server, now
from portal.store.oauth_tables import AppGrant, AppToken, OAuthFlow
from tests.conftest import Write
from tests.support.factories import PASSWORD, make_server
from tests.support.oauth.asking import CHALLENGE, VERIFIER
from tests.support.oauth.brokered import portal_on_a_port
from tests.support.oauth.browsing import Arrival, HttpBrowser

BACK = "http://127.0.0.1:3030/callback"
TOKEN = "SECRET-corp-token-of-mel"
CORP = "id-corp"
DECLARED = [{"name": "CORP_TOKEN", "scope": "user", "description": "From the IT desk"}]


@dataclass
class App:
    """An MCP client, played by plain HTTP."""

    portal: str
    client_id: str = ""

    def discover(self, path: str) -> dict[str, Any]:
        """The authorization server of a path of the gateway, as its metadata lead there."""
        resource = self.get(f"/.well-known/oauth-protected-resource{path}")
        assert resource["resource"] == f"{self.portal}{path}"
        assert resource["authorization_servers"] == [self.portal]
        return self.get("/.well-known/oauth-authorization-server")

    def get(self, path: str) -> dict[str, Any]:
        answer = httpx2.get(f"{self.portal}{path}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def register(self, endpoint: str) -> None:
        claims = {"client_name": "Test client", "redirect_uris": [BACK]}
        answer = httpx2.post(endpoint, json=claims)
        assert answer.status_code == 201, answer.text
        self.client_id = answer.json()["client_id"]

    def request(self, path: str = "/corp/mcp", **changes: str | None) -> str:
        """An authorization request, with changes; None leaves a parameter out."""
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": BACK,
            "state": "the-state",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": f"{self.portal}{path}",
        } | changes
        kept = {name: value for name, value in query.items() if value is not None}
        return f"{self.portal}/oauth/authorize?{urlencode(kept)}"

    def ask(self, at: str = "token", **form: str) -> httpx2.Response:
        return httpx2.post(f"{self.portal}/oauth/{at}", data={"client_id": self.client_id, **form})

    def redeem(self, code: str, **changes: str) -> httpx2.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": BACK,
            "code_verifier": VERIFIER,
        }
        return self.ask(**{**form, **changes})

    def renew(self, refresh_token: str, **changes: str) -> httpx2.Response:
        return self.ask(
            **{"grant_type": "refresh_token", "refresh_token": refresh_token, **changes}
        )


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with portal_on_a_port(settings.database_url) as url:
        yield url


@pytest.fixture
def app_client(url: str, write: Write) -> App:
    """A registered client, and a server that needs a value of each person."""
    with write() as session:
        make_server(
            session,
            "corp",
            alias="corp",
            allow_all_keys=True,
            static_headers={"X-Corp-Token": "${CORP_TOKEN}"},
            env_vars=DECLARED,
        )
    app = App(url)
    app.register(f"{url}/oauth/register")
    return app


@pytest.fixture
def mel(url: str) -> Iterator[HttpBrowser]:
    with HttpBrowser() as browser:
        page = browser.visit(f"{url}/login")
        browser.submit(page, "Sign in", email="mel@example.com", password=PASSWORD)
        yield browser


@pytest.fixture
def who(database: Database) -> Callable[..., Principal | None]:
    """Whose a token is at a path of the gateway."""

    def asking(token: str, path: str = "/corp/mcp") -> Principal | None:
        address = read_path(path)
        assert address is not None
        with database.session() as session:
            return principal_of(session, token, address, address="127.0.0.1")

    return asking


def allowed(browser: HttpBrowser, app: App, **fields: str) -> dict[str, str]:
    """What the app gets back once the person agreed."""
    page = browser.visit(app.request())
    assert page.status == 200, page.text
    back = browser.submit(page, "Allow", until=BACK, **fields)
    assert back.url.startswith(BACK), back.text
    return back.query


def tokens(browser: HttpBrowser, app: App) -> dict[str, Any]:
    answer = app.redeem(allowed(browser, app, **{"value-CORP_TOKEN": TOKEN})["code"])
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


Who = Callable[..., Principal | None]


def test_a_client_signs_in_and_the_person_enters_their_value_on_the_way(
    url: str, app_client: App, who: Who, write: Write
) -> None:
    found = app_client.discover("/corp/mcp")
    assert found["authorization_endpoint"] == f"{url}/oauth/authorize"
    assert found["token_endpoint"] == f"{url}/oauth/token"
    assert found["registration_endpoint"] == f"{url}/oauth/register"
    assert found["code_challenge_methods_supported"] == ["S256"]
    with HttpBrowser() as browser:
        page = browser.visit(app_client.request())
        assert page.url.startswith(f"{url}/login?next=")
        page = browser.submit(page, "Sign in", email="mel@example.com", password=PASSWORD)
        for words in ("Test client", "Not verified", "corp", BACK, "mel@example.com", "IT desk"):
            assert words in page.text
        back = browser.submit(page, "Allow", until=BACK, **{"value-CORP_TOKEN": TOKEN})
    assert (back.query["state"], back.query["iss"]) == ("the-state", url)
    answer = app_client.redeem(back.query["code"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    given = answer.json()
    assert (given["token_type"], given["expires_in"]) == ("Bearer", 3600)
    person = who(given["access_token"])
    assert person is not None
    assert (person.user_id, person.key_id, person.app_id) == ("mel", None, app_client.client_id)
    with write() as session:
        row = session.get(Server, CORP)
        assert row is not None
        assert opened_values(session, row, "mel") == {"CORP_TOKEN": TOKEN}


def test_a_value_that_is_left_out_is_asked_for_again(mel: HttpBrowser, app_client: App) -> None:
    page = mel.submit(mel.visit(app_client.request()), "Allow")
    assert page.status == 422
    assert "Enter CORP_TOKEN." in page.text
    back = mel.submit(page, "Allow", until=BACK, **{"value-CORP_TOKEN": TOKEN})
    assert "code" in back.query


def test_the_second_time_nothing_is_missing(mel: HttpBrowser, app_client: App) -> None:
    tokens(mel, app_client)
    page = mel.visit(app_client.request())
    assert "value-CORP_TOKEN" not in page.text
    assert "code" in mel.submit(page, "Allow", until=BACK).query


def test_a_person_may_say_no(mel: HttpBrowser, app_client: App, url: str) -> None:
    page = mel.visit(app_client.request())
    back = mel.submit(page, "Don’t allow", until=BACK).query
    assert (back["error"], back["state"], back["iss"]) == ("access_denied", "the-state", url)
    assert mel.visit(page.url).status == 400, "it counts once"


@pytest.mark.parametrize("path", ["/corp/mcp", "/mcp/corp", "/id-corp/mcp", "/mcp/id-corp"])
def test_a_token_is_good_at_any_address_of_its_server(
    mel: HttpBrowser, app_client: App, who: Who, path: str
) -> None:
    assert who(tokens(mel, app_client)["access_token"], path) is not None


@pytest.mark.parametrize("path", ["/notes/mcp", "/mcp", "/toolset/corp/mcp", "/nowhere/mcp"])
def test_and_at_no_other(mel: HttpBrowser, app_client: App, who: Who, path: str) -> None:
    assert who(tokens(mel, app_client)["access_token"], path) is None


def test_a_refresh_token_is_renewed_once_and_soon_after_answers_the_same(
    mel: HttpBrowser, app_client: App, who: Who
) -> None:
    first = tokens(mel, app_client)
    second = app_client.renew(first["refresh_token"])
    assert second.status_code == 200, second.text
    assert second.json()["refresh_token"] != first["refresh_token"]
    assert app_client.renew(first["refresh_token"]).json() == second.json()
    assert who(second.json()["access_token"]) is not None


def test_a_refresh_token_that_comes_back_later_ends_the_family(
    mel: HttpBrowser, app_client: App, who: Who, write: Write
) -> None:
    first = tokens(mel, app_client)
    second = app_client.renew(first["refresh_token"]).json()
    _let_the_moment_pass(write)
    again = app_client.renew(first["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert who(first["access_token"]) is None
    assert who(second["access_token"]) is None
    assert app_client.renew(second["refresh_token"]).status_code == 400
    with write() as session:
        said = session.scalars(select(AuditEvent.action)).all()
    assert "app ended: refresh token used twice" in said


def test_another_client_renews_nothing_and_ends_nothing(
    mel: HttpBrowser, app_client: App, who: Who
) -> None:
    given = tokens(mel, app_client)
    stolen = app_client.renew(given["refresh_token"], client_id="https://other.example/app.json")
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
    assert who(given["access_token"]) is not None
    assert app_client.renew(given["refresh_token"]).status_code == 200


def test_a_code_that_is_redeemed_twice_ends_what_the_first_got(
    mel: HttpBrowser, app_client: App, who: Who
) -> None:
    code = allowed(mel, app_client, **{"value-CORP_TOKEN": TOKEN})["code"]
    given = app_client.redeem(code).json()
    assert app_client.redeem(code, code_verifier="w" * 64).json()["error"] == "invalid_grant"
    assert who(given["access_token"]) is not None, "who does not know the verifier ends nothing"
    assert app_client.redeem(code).json()["error"] == "invalid_grant"
    assert who(given["access_token"]) is None


def test_revoking_the_refresh_token_ends_the_family(
    mel: HttpBrowser, app_client: App, who: Who
) -> None:
    given = tokens(mel, app_client)
    assert app_client.ask("revoke", token=given["refresh_token"]).status_code == 200
    assert who(given["access_token"]) is None
    assert app_client.renew(given["refresh_token"]).status_code == 400
    assert app_client.ask("revoke", token="unknown").status_code == 200


def test_tokens_end_with_the_person_and_with_the_longest_session(
    mel: HttpBrowser, app_client: App, who: Who, write: Write, settings: Settings
) -> None:
    given = tokens(mel, app_client)
    longest = timedelta(hours=settings.session_max_hours)
    with write() as session:
        session.execute(update(AppGrant).values(given_at=now() - longest))
    assert who(given["access_token"]) is None
    assert app_client.renew(given["refresh_token"]).status_code == 400


def test_only_hashes_are_stored(mel: HttpBrowser, app_client: App, write: Write) -> None:
    given = tokens(mel, app_client)
    with write() as session:
        stored = {row.bearer_hash for row in session.scalars(select(AppToken))}
    assert len(stored) == 2
    assert not stored & {given["access_token"], given["refresh_token"]}


def test_a_person_who_may_not_use_the_server_reads_why_and_gets_back(
    mel: HttpBrowser, app_client: App, write: Write
) -> None:
    with write() as session:
        make_server(session, "hidden")
    for path in ("/hidden/mcp", "/nowhere/mcp"):
        page = mel.visit(app_client.request(path))
        assert page.status == 403
        assert "Server or toolset not found, or you do not have access." in page.text
        link = page.soup.find("a", string=re.compile("Back to the app"))
        assert link is not None
        assert "error=access_denied" in str(link["href"])


def test_the_upstreams_own_sign_in_is_part_of_the_same_trip(
    url: str, mel: HttpBrowser, app_client: App, guarded: str, who: Who
) -> None:
    page = mel.visit(app_client.request("/guarded/mcp"))
    onward: Arrival = mel.submit(page, "Allow")
    link = onward.soup.find("a", string=re.compile("Continue to"))
    assert link is not None, onward.text
    back = mel.visit(str(link["href"]), until=BACK)
    assert back.url.startswith(BACK), back.text
    given = app_client.redeem(back.query["code"]).json()
    assert who(given["access_token"], "/guarded/mcp") is not None


def test_their_own_key_is_asked_for_on_the_same_page(
    mel: HttpBrowser, app_client: App, write: Write, who: Who
) -> None:
    with write() as session:
        make_server(session, "own", is_byok=True, auth_type="api_key", allow_all_keys=True)
    page = mel.visit(app_client.request("/own/mcp"))
    assert mel.submit(page, "Allow").status == 422
    back = mel.submit(page, "Allow", until=BACK, key="SECRET-key-of-mel")
    given = app_client.redeem(back.query["code"]).json()
    assert who(given["access_token"], "/own/mcp") is not None


def test_the_worker_deletes_expired_tokens_and_grants_and_nothing_else(
    mel: HttpBrowser, app_client: App, write: Write, database: Database, settings: Settings
) -> None:
    tokens(mel, app_client)
    do_round(database, tidies=True)
    with write() as session:
        assert session.query(AppToken).count() == 2
        access = session.query(AppToken).filter(AppToken.kind == "access")
        access.update({AppToken.expires_at: now()})
    do_round(database, tidies=True)
    with write() as session:
        assert [token.kind for token in session.query(AppToken)] == ["refresh"]
        long_ago = now() - timedelta(hours=settings.session_max_hours)
        session.query(AppGrant).update({AppGrant.given_at: long_ago})
    do_round(database, tidies=True)
    with write() as session:
        assert session.query(AppGrant).count() == 0
        assert session.query(AppToken).count() == 0


def _let_the_moment_pass(write: Write) -> None:
    """Put what was done a moment ago back in time."""
    with write() as session:
        earlier = now() - timedelta(seconds=11)
        session.execute(update(OAuthFlow).values(expires_at=earlier))
        session.execute(
            update(AppToken).where(AppToken.spent_at.is_not(None)).values(spent_at=earlier)
        )
