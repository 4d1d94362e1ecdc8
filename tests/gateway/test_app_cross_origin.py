"""Which pages of other origins may use the gateway from a browser, and with what."""

from collections.abc import Callable, Iterator

import pytest

from portal.settings import BadSettings, read_settings
from tests.conftest import Portal, Write, make_settings
from tests.gateway.conftest import Running, running
from tests.support.factories import make_server

APP = "https://app.example.com"
LOCAL = "http://localhost:6274"
PORTAL = "http://127.0.0.1:8000"
FOREIGN = (
    "https://evil.example",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.evil.example",
    "https://APP.example.com",
    "https://app.example.com/",
    "null",
    "",
)
EXPOSED = {"mcp-session-id", "www-authenticate"}


@pytest.fixture
def opened(portal_with: Callable[..., Portal]) -> Iterator[Running]:
    """A gateway that two origins may use."""
    with running(portal_with(gateway_origins=(APP, LOCAL))) as found:
        yield found


def listed(header: str) -> set[str]:
    return {name.strip().lower() for name in header.split(",") if name.strip()}


@pytest.mark.parametrize("origin", [APP, LOCAL])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/echo", "/nobody-knows/mcp", "/toolset/any/mcp"])
def test_a_listed_origin_is_told_what_it_may_send(
    opened: Running, origin: str, method: str, path: str
) -> None:
    sent = "authorization, content-type, mcp-protocol-version, mcp-session-id, mcp-param-x"
    sent += ", x-api-key, x-litellm-api-key, last-event-id"
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": f"{sent}, cookie, x-forwarded-for, x-other",
    }
    answer = opened.ask("OPTIONS", path, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == origin
    assert listed(answer.headers["access-control-allow-methods"]) == {"get", "post", "delete"}
    assert listed(answer.headers["access-control-allow-headers"]) == listed(sent)
    assert "origin" in listed(answer.headers["vary"])
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("method", ["OPTIONS", "POST", "GET", "DELETE"])
def test_no_other_origin_gets_anything(opened: Running, origin: str, method: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = opened.ask(method, "/echo/mcp", "mel", headers=headers)
    assert answer.status_code == 403
    assert not any(name.startswith("access-control-") for name in answer.headers)


@pytest.mark.parametrize(
    ("origin", "method", "status"),
    [
        (APP, "OPTIONS", 403),
        (APP, "POST", 403),
        (PORTAL, "OPTIONS", 405),
        (PORTAL, "POST", 401),
        (None, "OPTIONS", 405),
        (None, "POST", 401),
    ],
)
def test_without_the_setting_no_origin_is_let_in(
    gateway: Running, origin: str | None, method: str, status: int
) -> None:
    headers = {"Access-Control-Request-Method": "POST"}
    headers |= {} if origin is None else {"Origin": origin}
    answer = gateway.ask(method, "/echo/mcp", headers=headers)
    assert answer.status_code == status
    assert not any(name.startswith("access-control-") for name in answer.headers)


def test_a_script_may_read_the_session_and_the_challenge(
    opened: Running, write: Write, echo_server: str
) -> None:
    with write() as session:
        make_server(session, "echo", url=echo_server, allow_all_keys=True)
    info = {"name": "page", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
    answers = {
        status: opened.post("echo", as_, "initialize", params, origin=APP)
        for as_, status in (("mel", 200), (None, 401), ("sk-wrong", 401))
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == APP
        assert listed(answer.headers["access-control-expose-headers"]) >= EXPOSED
        assert "access-control-allow-credentials" not in answer.headers
    assert answers[200].headers["mcp-session-id"]
    assert "resource_metadata" in answers[401].headers["www-authenticate"]


def test_options_that_is_no_preflight_is_no_method(opened: Running) -> None:
    assert opened.ask("OPTIONS", "/echo/mcp", headers={"Origin": APP}).status_code == 405


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "null",
        "app.example.com",
        "https://app.example.com/",
        "https://*.example.com",
        "https://App.example.com",
        "https://app.example.com:443",
        "https://app.example.com:",
        "https://user@app.example.com",
        "https://app.example.com:port",
        f"{APP}, https://",
    ],
)
def test_the_setting_takes_only_what_browsers_send(value: str) -> None:
    with pytest.raises(BadSettings, match="PORTAL_GATEWAY_ORIGINS: must be a comma-separated list"):
        read_settings({"PORTAL_GATEWAY_ORIGINS": value})


def test_the_setting_is_a_list() -> None:
    value = f"{APP}, {LOCAL},http://[::1]:8080,chrome-extension://abcdefgh"
    settings = make_settings("sqlite://", gateway_origins=value)
    assert settings.gateway_origins == (
        APP,
        LOCAL,
        "http://[::1]:8080",
        "chrome-extension://abcdefgh",
    )
