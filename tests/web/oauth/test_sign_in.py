"""Signing in by OpenID providers: a certified one, and one that lies in every way there is
(3-security.md, 5)."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.app import create_app, open_database
from portal.settings import BadSettings, read_settings
from portal.store.models import AuditEvent, TeamMember, User
from portal.store.oauth_tables import OAuthFlow
from tests.conftest import CREW, Portal, Write, make_settings
from tests.support.browsing import text_of
from tests.support.html import parse
from tests.support.oauth.browsing import HttpBrowser
from tests.support.oauth.forging import FAULTS, ForgingProvider
from tests.support.oauth_peers import OidcProvider

PUBLIC = "http://127.0.0.1:8000"
CALLBACK = f"{PUBLIC}/login/corp/callback"
Opened = Callable[..., FlaskClient]


@pytest.fixture
def opened(portal: Portal) -> Iterator[Opened]:
    """`opened(forger, roles=…)`: a browser at a portal that has this provider, under the name
    `corp`."""
    made = []

    def opening(provider: ForgingProvider | OidcProvider, **rules: Any) -> FlaskClient:
        given = {
            "name": "corp",
            "label": "Corp",
            "issuer": provider.issuer,
            "client_id": provider.client_id,
            "client_secret": provider.client_secret,
            **rules,
        }
        password = rules.pop("password_sign_in", True)
        given.pop("password_sign_in", None)
        settings = make_settings(
            portal.settings.database_url, sign_in_providers=[given], password_sign_in=password
        )
        database = open_database(settings)
        made.append(database)
        return create_app(settings, database=database).test_client()

    yield opening
    for database in made:
        database.engine.dispose()


@pytest.fixture(autouse=True)
def _somebody_new(forging_provider: ForgingProvider) -> None:
    forging_provider.claims |= {"sub": "sub-of-dana", "email": "dana@example.com", "name": "Dana"}


def begin(browser: FlaskClient, path: str = "/login/corp") -> str:
    """Set out; the address at the provider."""
    answer = browser.get(path)
    assert answer.status_code == 303, answer.get_data(as_text=True)
    return str(answer.location)


def come_back(address: str) -> str:
    """What the provider, which asks nothing, sends the browser back to: a path of ours."""
    with HttpBrowser() as outside:
        return outside.visit(address, until=CALLBACK).url.removeprefix(PUBLIC)


def signed_in_as(browser: FlaskClient) -> str | None:
    answer = browser.get("/profile")
    found = parse(answer) if answer.status_code == 200 else None
    return text_of(found.select_one("main")) if found else None


@contextmanager
def nothing_made(write: Write) -> Iterator[None]:
    def people() -> int:
        with write() as session:
            return len(session.scalars(select(User)).all())

    before = people()
    yield
    assert people() == before


def test_a_person_signs_in_and_lands_where_they_were_going(
    opened: Opened, oidc_provider: Callable[..., OidcProvider], write: Write
) -> None:
    provider = oidc_provider(redirect_uris=[CALLBACK], login="bob")
    browser = opened(provider)
    start = parse(browser.get("/login?next=/credentials"))
    link = start.find("a", string=re.compile("Continue with Corp"))
    assert link
    answer = browser.get(come_back(begin(browser, str(link["href"]))))
    assert (answer.status_code, answer.location) == (303, "/credentials")
    assert "bob@example.com" in (signed_in_as(browser) or "")
    with write() as session:
        bob = session.scalar(select(User).where(User.email == "bob@example.com"))
        assert bob is not None
        assert (bob.role, bob.sso_issuer, bob.sso_subject) == (
            "internal_user",
            provider.issuer,
            "sub-of-bob",
        )
        events = list(
            session.scalars(select(AuditEvent.action).where(AuditEvent.target_id == bob.user_id))
        )
        assert sorted(events) == ["signed in", "user created"]


def test_the_same_person_again_is_the_same_account_whatever_their_e_mail(
    opened: Opened, forging_provider: ForgingProvider, write: Write
) -> None:
    browser = opened(forging_provider)
    forging_provider.claims = {"sub": "s-1", "email": "one@example.com", "email_verified": True}
    browser.get(come_back(begin(browser)))
    forging_provider.claims = {"sub": "s-1", "email": "ada@example.com", "email_verified": True}
    assert browser.get(come_back(begin(browser))).status_code == 303
    with write() as session:
        found = list(session.scalars(select(User).where(User.sso_subject == "s-1")))
    assert [user.email for user in found] == ["one@example.com"]


def test_the_request_carries_pkce_state_and_nonce(
    opened: Opened, forging_provider: ForgingProvider
) -> None:
    browser = opened(forging_provider)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(begin(browser)).query).items()}
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    assert len(asked["state"]) >= 43
    assert len(asked["nonce"]) >= 43
    assert asked["redirect_uri"] == CALLBACK
    assert "openid" in asked["scope"].split()
    other = {name: values[0] for name, values in parse_qs(urlsplit(begin(browser)).query).items()}
    assert all(asked[name] != other[name] for name in ("state", "nonce", "code_challenge"))


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "discovery_issuer"])
def test_every_lie_is_refused_with_a_page_that_helps(
    opened: Opened, forging_provider: ForgingProvider, write: Write, fault: str
) -> None:
    browser = opened(forging_provider)
    address = begin(browser)
    forging_provider.fault = fault
    with nothing_made(write):
        answer = browser.get(come_back(address))
    wanted = (
        400 if fault in ("response_state", "access_denied") else 502
    )  # not a sign-in of ours; not proven
    assert answer.status_code == wanted
    page = parse(answer, answer.status_code)
    assert text_of(page.h1) == "Sign-in failed"
    assert page.find("a", string="Try again")
    assert signed_in_as(browser) is None
    forging_provider.fault = None
    assert browser.get(come_back(begin(browser))).status_code == 303  # and the way on works


def test_a_provider_that_names_another_issuer_is_not_used(
    opened: Opened, forging_provider: ForgingProvider
) -> None:
    forging_provider.fault = "discovery_issuer"
    answer = opened(forging_provider).get("/login/corp")
    assert answer.status_code == 502
    assert "a different issuer" in answer.get_data(as_text=True)


def test_a_replayed_answer_is_refused(opened: Opened, forging_provider: ForgingProvider) -> None:
    browser = opened(forging_provider)
    path = come_back(begin(browser))
    assert browser.get(path).status_code == 303
    browser.post("/logout", data={"csrf_token": _token(browser)})
    again = browser.get(path)
    assert again.status_code == 400
    assert "already used" in again.get_data(as_text=True)
    assert signed_in_as(browser) is None


def test_an_answer_is_worth_nothing_in_another_browser(
    opened: Opened, forging_provider: ForgingProvider
) -> None:
    browser = opened(forging_provider)
    path = come_back(begin(browser))
    victim = browser.application.test_client()
    assert victim.get(path).status_code == 400
    assert signed_in_as(victim) is None
    assert (
        browser.get(path).status_code == 303
    )  # and nobody ended the sign-in of the one who began it


def test_a_sign_in_ends_after_ten_minutes(
    opened: Opened, forging_provider: ForgingProvider, write: Write
) -> None:
    browser = opened(forging_provider)
    path = come_back(begin(browser))
    with write() as session:
        for flow in session.scalars(select(OAuthFlow)):
            flow.expires_at = flow.created_at
    assert browser.get(path).status_code == 400


@pytest.mark.parametrize(
    "query",
    ["", "?code=x", "?state=x", "?code=x&state=y", "?code=%00&state=%00", "?state=" + "x" * 5000],
)
def test_rubbish_at_the_callback_is_a_page(
    opened: Opened, forging_provider: ForgingProvider, query: str
) -> None:
    answer = opened(forging_provider).get(f"/login/corp/callback{query}")
    assert answer.status_code == 400


def test_an_unknown_provider_is_not_there(
    opened: Opened, forging_provider: ForgingProvider
) -> None:
    browser = opened(forging_provider)
    assert browser.get("/login/other").status_code == 404
    assert browser.get("/login/other/callback?code=1&state=2").status_code in (400, 404)


def test_the_way_back_leads_to_our_own_paths_only(
    opened: Opened, forging_provider: ForgingProvider
) -> None:
    browser = opened(forging_provider)
    for target in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:1"):
        answer = browser.get(come_back(begin(browser, f"/login/corp?next={target}")))
        assert answer.location == "/servers"


def test_groups_give_the_role_and_the_teams_anew_each_time(
    opened: Opened, forging_provider: ForgingProvider, write: Write
) -> None:
    browser = opened(
        forging_provider, roles={"mcp-admins": "proxy_admin"}, teams={"writers": "crew"}
    )

    def come_in(*groups: str) -> tuple[str, bool]:
        forging_provider.claims = {"sub": "s-2", "groups": list(groups), "name": "Sam"}
        assert browser.get(come_back(begin(browser))).status_code == 303
        with write() as session:
            user = session.scalar(select(User).where(User.sso_subject == "s-2"))
            assert user is not None
            return user.role, session.get(TeamMember, (CREW, user.user_id)) is not None

    assert come_in("everybody") == ("internal_user", False)
    assert come_in("mcp-admins", "writers") == ("proxy_admin", True)
    assert come_in("writers") == ("internal_user", True)
    assert come_in() == ("internal_user", False)


def test_the_last_admin_stays_one(
    opened: Opened, forging_provider: ForgingProvider, write: Write
) -> None:
    browser = opened(forging_provider, roles={"mcp-admins": "proxy_admin"})
    forging_provider.claims = {"sub": "s-8", "groups": ["mcp-admins"]}
    browser.get(come_back(begin(browser)))
    with write() as session:
        for other in session.scalars(select(User).where(User.sso_subject.is_(None))):
            other.is_active = False
    forging_provider.claims = {"sub": "s-8", "groups": []}
    assert browser.get(come_back(begin(browser))).status_code == 303
    with write() as session:
        assert session.scalar(select(User.role).where(User.sso_subject == "s-8")) == "proxy_admin"


def test_nobody_becomes_admin_without_a_rule(
    opened: Opened, forging_provider: ForgingProvider, write: Write
) -> None:
    forging_provider.claims = {
        "sub": "s-3",
        "groups": ["proxy_admin", "admin"],
        "role": "proxy_admin",
    }
    browser = opened(forging_provider)
    browser.get(come_back(begin(browser)))
    with write() as session:
        assert session.scalar(select(User.role).where(User.sso_subject == "s-3")) == "internal_user"


def test_a_role_that_an_admin_gave_stays_where_the_operator_mapped_none(
    opened: Opened, forging_provider: ForgingProvider, write: Write
) -> None:
    forging_provider.claims = {"sub": "s-4"}
    browser = opened(forging_provider)
    browser.get(come_back(begin(browser)))
    with write() as session:
        user = session.scalar(select(User).where(User.sso_subject == "s-4"))
        assert user is not None
        user.role = "proxy_admin_viewer"
    browser.get(come_back(begin(browser)))
    with write() as session:
        assert (
            session.scalar(select(User.role).where(User.sso_subject == "s-4"))
            == "proxy_admin_viewer"
        )


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "x@elsewhere.example", "email_verified": True},
        {"email": "x@corp.example", "email_verified": False},
        {"email": "x@corp.example"},
        {"email": "x@corp.example", "email_verified": "true"},
        {"email": "x@evil@corp.example", "email_verified": True},
        {"email": "x@c\u043erp.example", "email_verified": True},
        {"email": "x@corp.example.evil.example", "email_verified": True},
        {"email": "x@corp.example\n", "email_verified": 1},
        {},
    ],
)
def test_a_domain_rule_lets_in_verified_addresses_of_the_domain_only(
    opened: Opened, forging_provider: ForgingProvider, write: Write, claims: dict[str, Any]
) -> None:
    browser = opened(forging_provider, email_domains=["corp.example"])
    forging_provider.claims = {"sub": "s-5", **claims}
    with nothing_made(write):
        answer = browser.get(come_back(begin(browser)))
    assert answer.status_code == 403
    forging_provider.claims = {"sub": "s-5", "email": "X@Corp.Example", "email_verified": True}
    assert browser.get(come_back(begin(browser))).status_code == 303


def test_an_account_with_the_same_e_mail_is_linked_only_where_the_operator_says_so(
    opened: Opened, forging_provider: ForgingProvider, write: Write
) -> None:
    forging_provider.claims = {"sub": "s-6", "email": "mel@example.com", "email_verified": True}
    with nothing_made(write):
        answer = (careful := opened(forging_provider)).get(come_back(begin(careful)))
    assert answer.status_code == 403
    assert "not linked" in answer.get_data(as_text=True)
    forging_provider.claims["email_verified"] = False
    trusting = opened(forging_provider, link_by_email=True)
    assert (
        trusting.get(come_back(begin(trusting))).status_code == 303
    )  # somebody new, without that e-mail
    forging_provider.claims |= {"sub": "s-7", "email_verified": True}
    assert trusting.get(come_back(begin(trusting))).status_code == 303
    with write() as session:
        mel = session.get(User, "mel")
        assert mel is not None
        assert mel.sso_subject == "s-7"


def test_who_is_deactivated_stays_out(
    opened: Opened, forging_provider: ForgingProvider, write: Write
) -> None:
    browser = opened(forging_provider)
    browser.get(come_back(begin(browser)))
    with write() as session:
        user = session.scalar(select(User).where(User.sso_subject == "sub-of-dana"))
        assert user is not None
        user.is_active = False
    answer = browser.get(come_back(begin(browser)))
    assert answer.status_code == 403
    assert "deactivated" in answer.get_data(as_text=True)


def test_signing_out_ends_the_session_at_the_provider_too(
    opened: Opened, oidc_provider: Callable[..., OidcProvider]
) -> None:
    provider = oidc_provider(
        redirect_uris=[CALLBACK], post_logout_redirect_uris=[f"{PUBLIC}/login"], login="bob"
    )
    browser = opened(provider)
    browser.get(come_back(begin(browser)))
    answer = browser.post("/logout", data={"csrf_token": _token(browser)})
    link = parse(answer).select_one("main a.primary")
    assert link
    query = parse_qs(urlsplit(str(link["href"])).query)
    assert str(link["href"]).startswith(provider.issuer)
    assert query["post_logout_redirect_uri"] == [f"{PUBLIC}/login"]
    assert query["id_token_hint"][0].count(".") == 2
    assert signed_in_as(browser) is None


def test_a_provider_without_end_session_is_left_alone(
    opened: Opened, oidc_provider: Callable[..., OidcProvider]
) -> None:
    browser = opened(oidc_provider(redirect_uris=[CALLBACK], login="bob", end_session=False))
    browser.get(come_back(begin(browser)))
    assert browser.post("/logout", data={"csrf_token": _token(browser)}).status_code == 303


def test_passwords_can_be_switched_off(opened: Opened, forging_provider: ForgingProvider) -> None:
    browser = opened(forging_provider, password_sign_in=False)
    page = parse(browser.get("/login"))
    assert page.select_one("input[type=password]") is None
    assert page.find("a", string=re.compile("Continue with Corp"))
    assert browser.get(come_back(begin(browser))).status_code == 303


def test_no_token_and_no_secret_stands_in_the_database_in_the_clear(
    opened: Opened, forging_provider: ForgingProvider, portal: Portal
) -> None:
    browser = opened(forging_provider)
    browser.get(come_back(begin(browser)))
    asked = {recorded.kind: recorded for recorded in forging_provider.requests}
    path = str(portal.database.engine.url.database)
    if portal.database.engine.dialect.name != "sqlite":
        pytest.skip("the file of SQLite is searched; the columns are the same on PostgreSQL")
    content = b"".join(open(path + suffix, "rb").read() for suffix in ("", "-wal"))  # noqa: SIM115
    for secret in (
        asked["token"].form["code_verifier"],
        asked["authorize"].query["nonce"],
        forging_provider.client_secret,
    ):
        assert secret.encode() not in content


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("{", "PORTAL_SIGN_IN_PROVIDERS: must be a JSON list"),
        ('[{"name": "x"}]', "PORTAL_SIGN_IN_PROVIDERS: Field required"),
        (
            '[{"name": "x", "issuer": "http://idp.example.com", "client_id": "c"}]',
            "issuer must be an https URL",
        ),
        (
            '[{"name": "x", "issuer": "https://i", "client_id": "c", "roles": {"g": "root"}}]',
            "PORTAL_SIGN_IN_PROVIDERS",
        ),
        (
            '[{"name": "mcp", "issuer": "https://i", "client_id": "c"}]',
            "other than logout and mcp",  # /login/mcp is an address of the gateway
        ),
    ],
)
def test_settings_that_cannot_be_used_stop_the_start(value: str, says: str) -> None:
    with pytest.raises(BadSettings, match=re.escape(says)):
        read_settings(
            {
                "PORTAL_SECRET_KEY": "x" * 32,
                "PORTAL_ENCRYPTION_KEYS": "k1:" + "QUFB" * 10 + "QUE=",
                "PORTAL_SIGN_IN_PROVIDERS": value,
            }
        )


def _token(browser: FlaskClient) -> str:
    found = parse(browser.get("/profile")).select_one("input[name=csrf_token]")
    assert found
    return str(found["value"])


@pytest.mark.parametrize(
    ("domain", "listed", "status"),
    [
        ("exämple.com", "xn--exmple-cua.com", 303),
        ("xn--exmple-cua.com", "exämple.com", 303),
        ("EXAMPLE.com", "Example.Com.", 303),
        ("еxample.com", "example.com", 403),
        ("example.com.", "example.com", 403),
        ("ｅxample.com", "example.com", 403),
        ("exam\u200bple.com", "example.com", 403),
        ("example.com.evil.example", "example.com", 403),
        ("examp1e.com", "example.com", 403),
    ],
)
def test_email_domains_are_compared_in_one_form(
    opened: Opened, forging_provider: ForgingProvider, domain: str, listed: str, status: int
) -> None:
    browser = opened(forging_provider, email_domains=[listed])
    forging_provider.claims |= {
        "sub": f"s-{domain}",
        "email": f"dana@{domain}",
        "email_verified": True,
    }
    assert browser.get(come_back(begin(browser))).status_code == status


@pytest.mark.parametrize(
    "domain", ["еxample.com", "ｅxample.com", "exam\u200bple.com", "example.com.", "exаmple.com"]
)
def test_nobody_gets_an_account_by_an_e_mail_that_looks_like_another(
    opened: Opened, forging_provider: ForgingProvider, write: Write, domain: str
) -> None:
    browser = opened(forging_provider, link_by_email=True)
    forging_provider.claims |= {
        "sub": f"s-{domain}",
        "email": f"mel@{domain}",
        "email_verified": True,
    }
    with nothing_made(write):
        answer = browser.get(come_back(begin(browser)))
    assert answer.status_code == 403
    assert signed_in_as(browser) is None


def test_an_account_with_an_e_mail_of_old_is_linked_by_its_form_of_today(
    opened: Opened, forging_provider: ForgingProvider, write: Write
) -> None:
    with write() as session:
        mel = session.get(User, "mel")
        assert mel is not None
        mel.email = "mel@exämple.com"
    browser = opened(forging_provider, link_by_email=True)
    forging_provider.claims |= {
        "sub": "s-mel",
        "email": "mel@xn--exmple-cua.com",
        "email_verified": True,
    }
    with nothing_made(write):
        assert browser.get(come_back(begin(browser))).status_code == 303
