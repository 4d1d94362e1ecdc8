"""What holds for every endpoint: default deny, CSRF, GET that changes nothing, headers, cookies, sessions that end."""

import re
import sqlite3
from collections.abc import Iterator
from http.cookies import SimpleCookie
from typing import Any

import pytest
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from portal.domain.principals import OPERATOR
from portal.services import keys, people, sessions
from portal.web.context import OPEN_ENDPOINTS
from tests.conftest import KEYS, NOTES, make_settings
from tests.factories import PASSWORD
from tests.security.callers import SPARE_KEY, Caller, World, add_callers, opened_world, token_in
from tests.security.test_routes import address, every_route, send

OPEN = {"static", "healthz", "readyz", "metrics", "accounts.sign_in", "resource_metadata"}
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}
# What a request may leave behind without having been asked to change anything.
TRACES = {
    "sessions": {"*"},  # the sign-in page gives a stranger one, for its CSRF token
    "api_keys": {"last_used_at"},
    # The two health reads of the API probe, and everybody who looks sees what they saw (`1-system.md`, 6).
    "servers": {
        "health_status", "health_reason", "health_error", "health_checked_at", "health_latency_ms", "protocol_version",
        "probe_due_at", "probe_started_at", "probe_failures",
    },
    "health_records": {"*"},
}  # fmt: skip
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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    path = tmp_path_factory.mktemp("endpoints") / "portal.db"
    with opened_world(make_settings(f"sqlite:///{path}"), path) as world:
        add_callers(world)
        world.remember()
        yield world


@pytest.fixture
def fresh(world: World) -> Iterator[World]:
    """The world for a test that writes; put back afterwards."""
    yield world
    world.put_back()


@pytest.fixture
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A portal that people reach by https."""
    path = tmp_path_factory.mktemp("https") / "portal.db"
    with opened_world(make_settings(f"sqlite:///{path}", public_url="https://portal.example"), path) as world:
        yield world


def rows(world: World) -> dict[str, Any]:
    """All that is stored, the traces aside."""
    connection = sqlite3.connect(world.path)
    connection.row_factory = sqlite3.Row
    tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
    found = {}
    for table in tables:
        traces = TRACES.get(table, set())
        if "*" not in traces:
            stored = connection.execute(f"select * from {table}").fetchall()
            found[table] = [{k: row[k] for k in row.keys() if k not in traces} for row in stored]  # noqa: SIM118
    connection.close()
    return found


def closed(world: World) -> list[tuple[str, Rule]]:
    return [(method, rule) for method, rule in every_route(world) if rule.endpoint not in OPEN]


# Default deny


def test_what_is_open_to_strangers_is_a_list_of_six() -> None:
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
    caller, before = fresh.callers[name], rows(fresh)
    other = fresh.callers["reader"].token
    for method, rule in every_route(fresh):
        if method not in UNSAFE:
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
                    "GET", f"{address(rule, fresh.ids)}?test=1&now=1", headers={"HX-Request": "true"}
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
    answers += [world.callers["admin"].ask("GET", path) for path in ("/nowhere", "/v1/nowhere", "/servers/no-such-id")]
    answers += [
        world.callers["nobody"].ask("PUT", "/login"),
        world.callers["nobody"].ask("GET", "/", headers={"Host": "evil"}),
    ]
    for answer in answers:
        for header, parts in HEADERS.items():
            for part in parts:
                assert part in answer.headers.get(header, ""), (answer.request.path, header)
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "*" not in policy
        assert "Strict-Transport-Security" not in answer.headers
        if not answer.request.path.startswith("/static/"):
            assert answer.headers["Cache-Control"] == "no-store", answer.request.path
        assert "Server" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers


def _cookies(answer: TestResponse) -> dict[str, Any]:
    jar: SimpleCookie = SimpleCookie()
    for line in answer.headers.getlist("Set-Cookie"):
        jar.load(line)
    return dict(jar)


def test_cookies_cannot_be_read_by_scripts_or_sent_from_elsewhere(world: World) -> None:
    answers = [world.app.test_client().get("/login"), world.callers["member"].ask("GET", "/servers?view=table")]
    jar = {name: cookie for answer in answers for name, cookie in _cookies(answer).items()}
    assert set(jar) == {"portal", "view"}
    for cookie in jar.values():
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
        assert not cookie["domain"]
        assert not cookie["secure"]


def test_over_https_cookies_are_bound_to_the_host_and_hsts_is_on(https: World) -> None:
    client = https.app.test_client()
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
    "host", ["evil.example", "127.0.0.1.evil.example", "portal.example:8000", "[::2]", "a b", "x:99999"]
)
def test_another_host_is_refused_whatever_is_asked(world: World, host: str) -> None:
    """A page under another name that resolves to us (DNS rebinding) gets nothing."""
    for path in ("/", "/login", "/servers", "/v1/me", "/nowhere", "/static/portal.css"):
        answer = world.callers["k-admin"].ask("GET", path, headers={"Host": host})
        assert answer.status_code == 400, (host, path)
    assert world.callers["nobody"].ask("GET", "/healthz", headers={"Host": host}).status_code in (200, 400)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_loopback_names_are_ours_where_the_public_url_is_loopback(world: World, host: str) -> None:
    assert world.callers["nobody"].ask("GET", "/login", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("portal.example", 200), ("PORTAL.example:443", 200), ("127.0.0.1", 400), ("portal.example:80", 400)],
)
def test_with_a_public_name_only_that_name_is_ours(https: World, host: str, status: int) -> None:
    answer = https.app.test_client().get("/login", base_url="https://portal.example", headers={"Host": host})
    assert answer.status_code == status


def test_a_forwarded_host_is_not_believed(world: World) -> None:
    answer = world.callers["nobody"].ask(
        "GET", "/servers", headers={"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    )
    assert answer.headers["Location"].startswith("/login")
    assert "evil" not in answer.get_data(as_text=True)


# Sessions and keys


def _cookie(caller: Caller) -> str:
    cookie = caller.client.get_cookie("portal")
    assert cookie is not None
    return cookie.value


def test_the_session_gets_a_new_id_at_sign_in_and_the_old_one_is_worth_nothing(fresh: World) -> None:
    client = fresh.app.test_client()
    token = token_in(client.get("/login"))
    planted = client.get_cookie("portal")
    client.post("/login", data={"email": "mel@example.com", "password": PASSWORD, "csrf_token": token})
    own = client.get_cookie("portal")
    assert planted is not None
    assert own is not None
    assert own.value != planted.value
    thief = fresh.app.test_client()
    thief.set_cookie("portal", planted.value)
    assert thief.get("/servers").status_code == 303
    with fresh.database.session() as session:
        assert sessions.load_session(session, planted.value) is None


def test_an_id_that_a_browser_was_given_by_somebody_else_is_not_taken_on(fresh: World) -> None:
    client = fresh.app.test_client()
    client.set_cookie("portal", "an-id-that-somebody-else-chose")
    token_in(client.get("/login"))
    cookie = client.get_cookie("portal")
    assert cookie is not None
    assert cookie.value != "an-id-that-somebody-else-chose"


def test_signing_out_ends_the_session_itself_not_only_the_cookie(fresh: World) -> None:
    caller = fresh.browser("member", "mel")
    stolen = _cookie(caller)
    assert caller.ask("POST", "/logout").status_code == 303
    thief = fresh.app.test_client()
    thief.set_cookie("portal", stolen)
    assert thief.get("/servers").status_code == 303
    assert thief.get("/v1/me").status_code == 401


def test_a_new_password_signs_out_the_other_browsers(fresh: World) -> None:
    here, there = fresh.browser("here", "otto"), fresh.browser("there", "otto")
    new = "another horse staple"
    fields = {"current_password": PASSWORD, "new_password": new, "repeat_password": new}
    assert here.ask("POST", "/profile/password", data=fields).status_code == 303
    assert (here.ask("GET", "/servers").status_code, there.ask("GET", "/servers").status_code) == (200, 303)


def test_a_person_who_is_deactivated_is_out_with_the_next_request(fresh: World) -> None:
    with fresh.database.session(writes=True) as session:
        people.change_user(session, OPERATOR, "mel", {"is_active": False})
        session.commit()
    assert fresh.callers["member"].ask("GET", "/servers").status_code == 303
    for name in ("k-member", "k-restr"):
        assert fresh.callers[name].ask("GET", "/v1/me").status_code == 401
    again = {"email": "mel@example.com", "password": PASSWORD}
    assert fresh.callers["nobody"].ask("POST", "/login", data=again).status_code == 422


def test_a_role_that_is_lowered_holds_with_the_next_request(fresh: World) -> None:
    with fresh.database.session(writes=True) as session:
        people.change_user(session, OPERATOR, "gone", {"is_active": True})  # somebody has to be the last Admin
        people.change_user(session, OPERATOR, "ada", {"role": "internal_user"})
        session.commit()
    assert fresh.callers["admin"].ask("GET", "/v1/users").status_code == 403
    assert fresh.callers["k-admin"].ask("DELETE", f"/v1/mcp/server/{NOTES}").status_code == 403


def test_a_key_that_is_revoked_opens_nothing_from_the_next_request_on(fresh: World) -> None:
    with fresh.database.session(writes=True) as session:
        issued = keys.issue_key(session, OPERATOR, keys.KeyDraft(user_id="mel"))
        session.commit()
    caller = fresh.with_key("spare", issued.key)
    assert caller.ask("GET", "/v1/me").status_code == 200
    revoked = fresh.callers["k-admin"].ask("DELETE", f"/v1/keys/{issued.view.key_id}")
    assert revoked.status_code == 204
    assert caller.ask("GET", "/v1/me").status_code == 401


def test_people_end_their_own_keys_and_nobody_elses(fresh: World) -> None:
    assert fresh.callers["k-outsider"].ask("DELETE", f"/v1/me/keys/{SPARE_KEY}").status_code == 403
    assert fresh.callers["k-member"].ask("DELETE", f"/v1/me/keys/{SPARE_KEY}").status_code == 204


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer sk-wrong"}, {"Authorization": "Basic YWRhOng="}, {"Authorization": ""},
        {"X-API-Key": "sk-wrong"}, {"X-API-Key": ""}, {"Authorization": "Bearer sk-wrong", "X-API-Key": KEYS["ada"]},
    ],
)  # fmt: skip
def test_a_header_that_is_there_decides_alone(world: World, headers: dict[str, str]) -> None:
    """A bad key is refused whatever cookie comes along (`1-system.md`, 6)."""
    admin = world.callers["admin"]
    assert Caller("admin", admin.client, headers).ask("GET", "/v1/me").status_code == 401


def test_a_key_opens_the_api_under_either_header_and_no_page(world: World) -> None:
    for headers in ({"X-API-Key": KEYS["ada"]}, {"Authorization": f"bearer {KEYS['ada']}"}):
        caller = Caller("key", world.app.test_client(use_cookies=False), headers)
        assert caller.ask("GET", "/v1/me").status_code == 200
        assert caller.ask("GET", "/servers").status_code == 303


def test_a_restricted_key_stays_on_its_routes(world: World) -> None:
    kit = world.callers["k-restr"]
    assert kit.ask("GET", "/v1/mcp/server").status_code == 200
    for path in ("/v1/users", "/v1/keys", "/v1/teams", "/v1/settings", "/v1/access-groups"):
        assert kit.ask("GET", path).status_code == 403
    for path in ("/v1/mcpx", "/v1/mcp/../users", "/v1//users", "/v1/mcp/%2e%2e/users"):
        assert kit.ask("GET", path).status_code in (308, 403, 404), path


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/", "//evil.example/", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
        "javascript:x", "/servers\r\nX-Evil: 1", "evil.example", "",
    ],
)  # fmt: skip
def test_signing_in_leads_only_to_our_own_pages(fresh: World, target: str) -> None:
    client = fresh.app.test_client()
    token = token_in(client.get("/login", query_string={"next": target}))
    fields = {"email": "guest@example.com", "password": PASSWORD, "csrf_token": token, "next": target}
    with_next = client.post("/login", data=fields, environ_base={"REMOTE_ADDR": "127.9.9.9"})
    assert (with_next.status_code, with_next.headers["Location"]) == (303, "/servers")
    assert "X-Evil" not in with_next.headers


def test_guessing_the_password_of_one_account_is_slowed_down_wherever_it_comes_from(fresh: World) -> None:
    nobody = fresh.callers["nobody"]
    guess = {"email": "victim@example.com", "password": "a guess"}
    answers = [nobody.ask("POST", "/login", data=guess).status_code for _ in range(11)]
    assert answers == [422] * 10 + [429]
    other = {"email": "other@example.com", "password": "a guess"}
    assert nobody.ask("POST", "/login", data=other).status_code == 422


def test_an_unknown_account_and_a_wrong_password_get_the_same_answer(fresh: World) -> None:
    texts = set()
    for email in ("otto@example.com", "nobody-of-this-name@example.com"):
        answer = fresh.callers["nobody"].ask("POST", "/login", data={"email": email, "password": "a guess"})
        text = answer.get_data(as_text=True).replace(email, "")
        texts.add((answer.status_code, re.sub(r'name="csrf_token" value="[^"]*"', "", text)))
    assert len(texts) == 1
    assert "The e-mail or the password is not right." in text
