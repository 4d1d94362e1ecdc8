"""Who is let in at an address of the gateway, and what the others are told."""

import pytest

from tests.conftest import NOTES, Write
from tests.gateway.conftest import Running
from tests.support.factories import make_key, make_server

METADATA = "http://127.0.0.1:8000/.well-known/oauth-protected-resource"
PATHS = ["/notes/mcp", "/mcp/notes", "/id-notes/mcp", "/nowhere/mcp", "/mcp", "/toolset/any/mcp"]


@pytest.fixture(autouse=True)
def _echo(write: Write, echo_server: str) -> None:
    with write() as session:
        make_server(session, "echo", url=echo_server, allow_all_keys=True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_strangers_learn_where_to_sign_in_whatever_there_is(
    gateway: Running, path: str, method: str
) -> None:
    answer = gateway.ask(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == f'Bearer resource_metadata="{METADATA}{path}"'
    assert answer.json()["error"]["message"] == "Sign in, or send an API key."


def test_a_key_that_opens_nothing_is_told_so(gateway: Running) -> None:
    answer = gateway.post("notes", "sk-nobody-has-this-key", "tools/list")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token", resource_')


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer {}"},
        {"X-API-Key": "{}"},
        {"x-litellm-api-key": "{}"},
        {"x-litellm-api-key": "Bearer {}", "Authorization": "Bearer something-else"},
    ],
)
def test_a_key_comes_in_any_of_three_headers(
    gateway: Running, write: Write, headers: dict[str, str]
) -> None:
    with write() as session:
        key = make_key(session, user_id="otto")
    sent = {name.lower().replace("-", "_"): text.format(key) for name, text in headers.items()}
    answer = gateway.post("echo", None, "tools/list", **sent)
    assert answer.status_code != 401, answer.text


def test_what_somebody_may_not_see_is_like_what_is_not_there(gateway: Running) -> None:
    answers = [
        gateway.post(name, "otto", "tools/list") for name in ("notes", NOTES, "nowhere", "x%2Fy")
    ]
    answers.append(gateway.post("nowhere", "ada", "tools/list"))
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.content for answer in answers}) == 1


def test_a_limited_key_needs_the_route(gateway: Running, write: Write) -> None:
    routes = {
        ("/v1/mcp",): 403,
        ("/mcp",): 200,
        ("/echo/mcp",): 200,
        ("/notes/mcp",): 403,
    }
    for allowed, status in routes.items():
        with write() as session:
            key = make_key(session, user_id="mel", routes=allowed)
        answer = gateway.post("echo", key, "initialize", INITIALIZE)
        assert answer.status_code == status, allowed


INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def test_a_session_is_good_for_its_holder_and_its_server(
    gateway: Running, write: Write, echo_server: str
) -> None:
    with write() as session:
        make_server(session, "other", url=echo_server, allow_all_keys=True)
    answer = gateway.post("echo", "mel", "initialize", INITIALIZE)
    sealed = answer.headers["mcp-session-id"]

    def asking(name: str, as_: str, session_id: str) -> int:
        return gateway.post(name, as_, "tools/list", mcp_session_id=session_id).status_code

    assert asking("echo", "mel", sealed) == 200
    assert asking("echo", "otto", sealed) == 404
    assert asking("other", "mel", sealed) == 404
    assert asking("echo", "mel", sealed[:-4] + "AAAA") == 404
    assert asking("echo", "mel", "made-up") == 404
    ended = gateway.ask("DELETE", "/echo/mcp", "mel", headers={"Mcp-Session-Id": sealed})
    assert ended.status_code == 200
    assert asking("echo", "mel", sealed) == 404


def test_a_browser_is_led_to_the_page_that_says_how_to_connect(gateway: Running) -> None:
    for name in ("echo", "nowhere"):
        answer = gateway.ask("GET", f"/{name}/mcp", headers={"Accept": "text/html,*/*"})
        assert answer.status_code == 302
        assert answer.headers["location"] == f"http://127.0.0.1:8000/servers/{name}/connect"


def test_pages_of_other_origins_are_refused(gateway: Running) -> None:
    for origin, status in (("http://127.0.0.1:8000", 200), ("https://evil.example", 403)):
        answer = gateway.post("echo", "mel", "initialize", INITIALIZE, origin=origin)
        assert answer.status_code == status


def test_another_host_name_is_refused(gateway: Running) -> None:
    answer = gateway.post("echo", "mel", "initialize", INITIALIZE, host="evil.example")
    assert answer.status_code == 400
