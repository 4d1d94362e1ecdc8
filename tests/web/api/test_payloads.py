"""Whatever is sent, the answer is a 4xx in the one envelope: never a 5xx, never a trace, never an
echo."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from portal.web.api import payloads, shapes
from tests.conftest import NOTES, Client, Write
from tests.support.factories import make_server

As = Callable[[str | None], Client]
JSON = "application/json"
UNSAFE = {"POST", "PUT", "PATCH"}

RAW: dict[str, tuple[bytes, str, int]] = {
    "broken": (b'{"a": ', JSON, 422),
    "empty": (b"", JSON, 422),
    "a list": (b"[]", JSON, 422),
    "a text": (b'"SECRET"', JSON, 422),
    "null": (b"null", JSON, 422),
    "NaN": (b'{"x": NaN}', JSON, 422),
    "infinity": (b'{"x": -Infinity}', JSON, 422),
    "an endless float": (b'{"x": 1e999}', JSON, 422),
    "an endless integer": (b'{"x": ' + b"9" * 5_000 + b"}", JSON, 422),
    "65 bits": (b'{"x": 18446744073709551616}', JSON, 422),
    "twice the same": (b'{"SECRET": 1, "SECRET": 2}', JSON, 422),
    "twice, below": (b'{"x": [{"a": 1, "a": 2}]}', JSON, 422),
    "NUL": (b'{"x": "SECRET\\u0000"}', JSON, 422),
    "NUL in a name": (b'{"\\u0000": 1}', JSON, 422),
    "a lone surrogate": (b'{"x": ["\\ud800"]}', JSON, 422),
    "a lone surrogate in a name": (b'{"x": {"\\udfff": 1}}', JSON, 422),
    "bad UTF-8": (b'{"x": "\xff\xfe"}', JSON, 422),
    "UTF-16": ('{"x": 1}'.encode("utf-16"), JSON, 422),
    "65 levels": (b'{"x":' + b"[" * 64 + b"]" * 64 + b"}", JSON, 422),
    "far too deep": (b"[" * 100_000, JSON, 422),
    "a form": (b"a=1", "application/x-www-form-urlencoded", 415),
    "no type": (b"{}", "", 415),
    "another type": (b"{}", "text/plain", 415),
    "a type like JSON": (b"{}", "application/json5", 415),
    "too large": (b'{"x": "' + b"a" * (2 * 1024 * 1024) + b'"}', JSON, 413),
}
IDS = (
    "nowhere",
    "%F0%9F%A6%8A",
    "%ff",
    "%ED%A0%80",
    "a" * 3_000,
    "..",
    "%2e%2e",
    "a%00b",
    "'%20or%201=1--",
    "%0a",
)


def routes(app: Flask, methods: set[str]) -> Iterator[tuple[str, str]]:
    """Every route of the API with these methods, its ids as `{}`."""
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/v1/"):
            path = rule.rule
            for name in rule.arguments:
                path = path.replace(f"<{name}>", "{}")
            for method in methods & (rule.methods or set()):
                yield method, path


def check(answer: Any) -> dict[str, Any]:
    """The one envelope, without a trace of ours or an echo of theirs."""
    text = answer.get_data(as_text=True)
    assert 400 <= answer.status_code < 500, (answer.status_code, text)
    assert answer.mimetype == JSON
    assert not any(
        word in text for word in ("Traceback", "sqlalchemy", "pydantic", ".py", "SECRET", "SELECT")
    )
    body: dict[str, Any] = answer.get_json()
    if "/oauth/" in answer.request.path and "detail" not in body:  # RFC 6749, 5.2
        assert {"error", "error_description"} <= set(body)
        return body
    detail: dict[str, Any] = body["detail"]
    assert {"error", "message", "field"} <= set(detail)
    return detail


def test_the_routes_of_the_api_are_these(app: Flask) -> None:
    """What outsiders lean on: a change here is a change of the wire format."""
    own = "GET,POST,DELETE"
    golden = {
        "/v1/mcp/server": "GET,POST,PUT",
        "/v1/mcp/server/{}": "GET,DELETE",
        "/v1/mcp/server/health": "GET",
        "/v1/mcp/server/{}/oauth-check": "GET",
        "/v1/mcp/server/{}/user-env-vars": own,
        "/v1/mcp/user-env-vars/status": "GET",
        "/v1/mcp/server/{}/user-credential": "POST,DELETE",
        "/v1/mcp/tools": "GET",
        "/v1/mcp/tools/call": "POST",
        "/v1/mcp/server/{}/oauth-user-credential": "POST,DELETE",
        "/v1/mcp/user-credentials": "GET",
        "/v1/mcp/server/{}/oauth-user-credential/status": "GET",
        "/v1/mcp/access_groups": "GET",
        "/v1/mcp/network/client-ip": "GET",
        "/v1/mcp/make_public": "POST",
        "/v1/settings": "GET,PATCH",
        "/v1/me": "GET",
        "/v1/me/keys": "GET,POST",
        "/v1/me/keys/{}": "DELETE",
        "/v1/teams/{}/members": "POST",
        "/v1/teams/{}/members/{}": "DELETE",
        "/v1/mcp/toolset": "GET,POST,PUT",
        "/v1/mcp/toolset/{}": "GET,DELETE",
        "/v1/access/explain": "GET",
        "/v1/mcp/server/register": "POST",
        "/v1/mcp/server/register/{}": "PUT",
        "/v1/mcp/server/submissions": "GET",
        "/v1/mcp/server/submissions/mine": "GET",
        "/v1/mcp/server/{}/approve": "PUT",
        "/v1/mcp/server/{}/reject": "PUT",
        "/v1/mcp/server/import": "POST",
        "/v1/mcp/registry.json": "GET",
        "/v1/audit": "GET",
        "/v1/audit/{}": "GET",
        "/v1/mcp/server/{}/tool-changes": "GET",
        "/v1/mcp/server/{}/tool-changes/accept": "POST",
        "/v1/mcp/discover": "GET",
        "/v1/openapi.json": "GET",
        "/v1/mcp/openapi-registry": "GET",
        "/v1/mcp/server/oauth/{}/authorize": "GET",
        "/v1/mcp/server/oauth/{}/token": "POST",
        "/v1/mcp/server/oauth/{}/register": "POST",
        "/v1/mcp/server/oauth/session": "POST",
        "/v1/mcp/oauth/authorize": "GET",
        "/v1/mcp/oauth/token": "POST",
    }
    for thing in ("users", "teams", "keys", "access-groups"):
        golden |= {f"/v1/{thing}": "GET,POST", f"/v1/{thing}/{{}}": "GET,PATCH,DELETE"}
    wanted = {(method, path) for path, methods in golden.items() for method in methods.split(",")}
    assert set(routes(app, {*UNSAFE, "GET", "DELETE"})) == wanted


@pytest.mark.parametrize("kind", RAW)
def test_a_body_that_is_not_what_it_should_be(client: As, app: Flask, kind: str) -> None:
    data, content_type, status = RAW[kind]
    ada = client("ada")
    for method, path in routes(app, UNSAFE):
        answer = ada.ask(method, path.format(NOTES, NOTES), data=data, content_type=content_type)
        if "/user-credential" in path:  # `notes` takes no keys, which is told first
            assert check(answer)["error"] == "not_byok"
            continue
        if path.endswith("/approve") and kind == "empty":  # approving needs no body
            assert check(answer)["error"] == "already_active"
            continue
        if "/oauth/" in path:  # these take forms as well, and `notes` needs no sign-in
            check(answer)
            continue
        if "/register" in path:  # an Admin adds servers directly, which is told first
            assert check(answer)["error"] == "forbidden"
            continue
        assert (answer.status_code, method, path) == (status, method, path)
        detail = check(answer)
        assert status != 422 or detail["errors"][0]["message"] == detail["message"]


def test_nobody_is_told_about_a_body_before_they_are_known(client: As, app: Flask) -> None:
    for method, path in routes(app, {*UNSAFE, "GET", "DELETE"}):
        if path in ("/v1/mcp/registry.json", "/v1/openapi.json") or path.startswith(
            "/v1/mcp/oauth/"
        ):
            # for strangers, where the operator says so; and clients come with a code, or with
            # nothing yet
            continue
        answer = client(None).ask(method, path.format("x", "x"), data=b"{", content_type=JSON)
        assert (answer.status_code, path) == (401, path)
        check(answer)


@pytest.mark.parametrize("server_id", IDS)
def test_ids_that_nobody_has(client: As, app: Flask, server_id: str) -> None:
    bodies = {"values": {}, "credential": "x", "server_id": "nowhere", "user_id": "nowhere"}
    for method, path in routes(app, {*UNSAFE, "GET", "DELETE"}):
        if "{}" in path:
            for name in ("ada", "mel"):
                check(client(name).ask(method, path.format(server_id, server_id), json=bodies))


@pytest.mark.parametrize("text", IDS)
def test_queries_that_mean_nothing(client: As, app: Flask, text: str) -> None:
    query = "&".join(f"{name}={text}" for name in ("team_id", "user_id", "server_ids", "q"))
    for method, path in routes(app, {"GET", "DELETE"}):
        answer = client("ada").ask(method, f"{path.format('nowhere', 'nowhere')}?{query}")
        assert answer.status_code < 500, (path, text)


def test_a_method_that_a_route_does_not_take_is_405_naming_those_it_does(client: As) -> None:
    answer = client("ada").ask("PATCH", "/v1/mcp/server")
    assert (answer.status_code, check(answer)["error"]) == (405, "method_not_allowed")
    assert {"GET", "POST", "PUT"} <= set(answer.headers["Allow"].split(", "))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"description": "x" * 4_001}, "description"),
        ({"url": "https://a.example/" + "x" * 4_096}, "url"),
        ({"allowed_tools": ["x"] * 501}, "allowed_tools"),
        ({"static_headers": {f"X-{n}": "1" for n in range(201)}}, "static_headers"),
        ({"static_headers": {"SECRET": "x" * 8_193}}, "static_headers"),
        ({"mcp_info": {"a": "x" * 8_193}}, "mcp_info"),
        ({"mcp_info": {"a": [0] * 2_001}}, "mcp_info"),
        ({"credentials": {"auth_value": 1}}, "credentials.auth_value"),
        ({"credentials": "SECRET"}, "credentials"),
        ({"env_vars": [{"name": "A", "scope": "SECRET"}]}, "env_vars.scope"),
        ({"env_vars": [{"name": "A" * 129}]}, "env_vars.name"),
        ({"args": ["x" * 8_193]}, "args"),
        ({"timeout": "10"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"is_byok": 1}, "is_byok"),
        ({"server_id": 7}, "server_id"),
    ],
)
def test_the_field_that_is_too_large_or_of_another_type_is_named(
    client: As, body: dict[str, Any], field: str
) -> None:
    answer = client("ada").post(
        "/v1/mcp/server", {"alias": "x", "url": "https://a.example", **body}
    )
    assert (answer.status_code, check(answer)["field"]) == (422, field)


def test_all_fields_at_fault_are_named_at_once(client: As) -> None:
    answer = client("ada").post("/v1/mcp/server", {"url": 1, "alias": [], "timeout": "x"})
    assert [error["field"] for error in check(answer)["errors"]] == ["alias", "url", "timeout"]


NASTY = st.sampled_from(
    [
        "",
        " ",
        "x",
        NOTES,
        "crew",
        "mel",
        "http://127.0.0.1:9/",
        "https://a.example",
        "stdio",
        "oauth2",
        "a-b",
        "${A}",
        "\n",
        "é" * 64,
        "ß" * 128,
        "a" * 300,
        "a" * 9_000,
        "\u202e",
        "\ufeff",
        "10.0.0.0/8",
        "2099-01-01T00:00:00Z",
        "-1",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, width=32)
    | NASTY
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3)
)


def _like(annotation: object) -> st.SearchStrategy[Any]:
    text = str(annotation)
    if "list" in text.lower():
        return st.lists(NASTY, max_size=3) | ANYTHING
    if "dict" in text.lower():
        return st.dictionaries(NASTY, NASTY | st.lists(NASTY, max_size=2), max_size=3) | ANYTHING
    return NASTY | ANYTHING


def bodies(shape: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some fields of `shape`, right, wrong or absurd."""
    fields = {}
    for name, field in shape.model_fields.items():
        nested = {"object_permission": shapes.Permission, "credentials": shapes.Credentials}.get(
            name
        )
        entries = {"env_vars": shapes.VariableEntry, "members_with_roles": shapes.Member}.get(name)
        fields[name] = (
            bodies(nested)
            if nested
            else st.lists(bodies(entries), max_size=3)
            if entries
            else _like(field.annotation)
        )
    return st.fixed_dictionaries({}, optional=fields)


TARGETS: dict[str, tuple[str, type[payloads.Payload]]] = {
    "/v1/mcp/server": ("POST", shapes.ServerBody),
    "/v1/mcp/server ": ("PUT", shapes.ServerChange),
    "/v1/mcp/server/id-mail/user-env-vars": ("POST", shapes.OwnValues),
    "/v1/mcp/server/id-mail/user-credential": ("POST", shapes.OwnKey),
    "/v1/mcp/make_public": ("POST", shapes.PublicServers),
    "/v1/users": ("POST", shapes.UserBody),
    "/v1/users/otto": ("PATCH", shapes.UserChange),
    "/v1/teams": ("POST", shapes.TeamBody),
    "/v1/teams/team-crew": ("PATCH", shapes.TeamChange),
    "/v1/teams/team-crew/members": ("POST", shapes.Member),
    "/v1/keys": ("POST", shapes.KeyBody),
    "/v1/me/keys": ("POST", shapes.KeyBody),
    "/v1/access-groups": ("POST", shapes.GroupBody),
    "/v1/settings": ("PATCH", shapes.SettingsChange),
}


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_stands_in_the_fields_the_portal_never_breaks(
    client: As, write: Write, target: str
) -> None:
    with write() as session:
        variables = [{"name": "A", "scope": "user"}]
        make_server(
            session,
            "mail",
            is_byok=True,
            auth_type="api_key",
            static_headers={"X": "${A}"},
            env_vars=variables,
        )
    method, shape = TARGETS[target]
    ada = client("ada")
    required = {"server_id": "id-mail"} if shape is shapes.ServerChange else {}

    @settings(
        max_examples=40,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies(shape))
    def never_breaks(body: dict[str, Any]) -> None:
        answer = ada.ask(
            method, target.strip(), data=json.dumps({**required, **body}), content_type=JSON
        )
        assert answer.status_code < 500, (answer.status_code, body)
        assert answer.status_code < 400 or {"error", "message", "field"} <= set(
            answer.get_json()["detail"]
        )

    never_breaks()
