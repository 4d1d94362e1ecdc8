"""Headers of the caller that a server lists (`extra_headers`) go on to it, and no others
(R-OAUTH-42)."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import KEYS, Client, Write
from tests.support.factories import make_server
from tests.support.peers import ROOT, bare_environment, free_port, start_process

As = Callable[[str | None], Client]
CALL = "/v1/mcp/tools/call"
LISTED = ["X-Trace", "x-tenant", "Authorization", "X-API-Key", "Cookie", "X-CSRFToken", "X-Copy"]


@pytest.fixture(autouse=True)
def _echo(write: Write, echo_server: str) -> None:
    with write() as session:
        make_server(session, "echo", url=echo_server, allow_all_keys=True, extra_headers=LISTED)


def arrived(asking: Client, **headers: str) -> dict[str, str]:
    """The headers that reached the upstream with a tool call."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = asking.post(CALL, json={"server_id": "echo", "name": "show_headers"}, headers=sent)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    seen: dict[str, str] = answer.get_json()["structuredContent"]
    return seen


def test_listed_headers_are_passed_on_whatever_their_case(client: As) -> None:
    seen = arrived(client("otto"), X_TRACE="t-1", X_Tenant="north", X_Other="stays")
    assert (seen["x-trace"], seen["x-tenant"]) == ("t-1", "north")
    assert "x-other" not in seen


def test_the_portals_own_credentials_never_are(client: As) -> None:
    """Listed or not: the key under its names and under another, the session's cookie, the CSRF
    token."""
    key = KEYS["otto"]
    seen = arrived(
        client("otto"),
        X_API_Key="theirs",
        Cookie="session=s",
        X_CSRFToken="t",
        X_Copy=f"Bearer {key}",
    )
    assert not {"authorization", "x-api-key", "cookie", "x-csrftoken", "x-copy"} & set(seen)
    by_other_name = arrived(client(None), X_API_Key=key, X_Copy=key, X_Trace="t")
    assert not {"authorization", "x-api-key", "x-copy"} & set(by_other_name)
    assert key not in str(seen) + str(by_other_name)


def test_a_signed_in_session_is_not_passed_on(signed_in: As) -> None:
    seen = arrived(signed_in("otto").with_csrf(), X_Trace="t-2")
    assert seen["x-trace"] == "t-2"
    assert not {"cookie", "x-csrftoken"} & set(seen)


def test_what_the_server_sends_itself_goes_before(
    client: As, write: Write, echo_server: str
) -> None:
    with write() as session:
        make_server(
            session,
            "own",
            url=echo_server,
            allow_all_keys=True,
            extra_headers=["x-trace", "Authorization"],
            static_headers={"X-Trace": "ours"},
            auth_type="bearer_token",
            credentials={"auth_value": "shared"},
        )
    call = {"server_id": "own", "name": "show_headers"}
    seen = (
        client("otto")
        .post(CALL, json=call, headers={"X-TRACE": "theirs"})
        .get_json()["structuredContent"]
    )
    assert (seen["x-trace"], seen["authorization"]) == ("ours", "Bearer shared")


@pytest.fixture(scope="module")
def tenants_only() -> Iterator[str]:
    """An echo server that answers 401 without X-Tenant: its URL."""
    port = free_port()
    argv: list[str | Path] = [
        sys.executable,
        ROOT / "examples" / "echo_server.py",
        "--port",
        str(port),
    ]
    with start_process([*argv, "--require-header", "X-Tenant"], bare_environment(), port):
        yield f"http://127.0.0.1:{port}/mcp"


def test_listing_passes_them_on_too(client: As, write: Write, tenants_only: str) -> None:
    """`GET /v1/mcp/tools`: an upstream that asks for the header lists its tools to who sends it."""
    with write() as session:
        make_server(
            session, "locked", url=tenants_only, allow_all_keys=True, extra_headers=["x-tenant"]
        )
    with_it = client("otto").get("/v1/mcp/tools", headers={"X-Tenant": "north"}).get_json()["tools"]
    without = client("otto").get("/v1/mcp/tools").get_json()["tools"]
    assert "locked-add" in {tool["name"] for tool in with_it}
    assert "locked-add" not in {tool["name"] for tool in without}


@pytest.mark.parametrize("value", ["a\tb", "é"])
def test_odd_values_that_http_allows_arrive(client: As, value: str) -> None:
    assert arrived(client("otto"), X_Trace=value)["x-trace"]
