"""Names, ids, URLs, headers and commands of a definition."""

import pytest

from portal.domain.errors import InvalidInput, InvalidRequest, PortalError
from portal.domain.servers import (
    AuthType,
    ServerFields,
    Transport,
    check_definition,
    check_server_id,
    check_url,
    check_values,
    normalized_name,
    origin_of,
)


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("github", "github"),
        ("my server", "my_server"),
        ("A_1", "A_1"),
        ("v1.2", "v1.2"),
        ("x", "x"),
        (" padded ", "padded"),
        ("x" * 64, "x" * 64),
    ],
)
def test_a_good_name_is_taken_with_its_spaces_made_underscores(typed: str, stored: str) -> None:
    assert normalized_name(typed, "alias") == stored


@pytest.mark.parametrize(
    "typed",
    ["bad/name", "has-dash", "", " ", "x" * 65, "ü", "a\nb", "a\x00", "тест", "a\ud800", "１"],
)
def test_a_bad_name_is_refused_naming_the_field(typed: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        normalized_name(typed, "server_name")
    assert refused.value.field == "server_name"
    refused.value.message.encode()  # can be answered, whatever was typed
    assert len(refused.value.message) < 1_000


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "https://host.example:8443/a/b?c=d",
        "http://[::1]:9/x",
        "HTTPS://HOST/",
        "http://xn--bcher-kva.de/",
    ],
)
def test_a_good_url_is_taken(url: str) -> None:
    check_url(url, "url")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "host/path",
        "//host/path",
        "http://",
        "http:///path",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "http://user@host/",
        "http://user:secret@host/",
        "http://@host/",
        "http://host/a b",
        "http://host\\@evil/",
        "http://host/\n",
        "http://host/\x7f",
        "http://host:99999/",
        "http://host:port/",
        "http://[::1/",
        "",
    ],
)
def test_a_bad_url_is_refused_naming_the_field_and_not_the_url(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_url(url, "token_url")
    assert refused.value.field == "token_url"
    assert url in ("", "http://") or url not in refused.value.message


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://h/p?q", "https://h"),
        ("https://h:443/", "https://h"),
        ("http://h:80", "http://h"),
        ("https://h:80/", "https://h:80"),
        ("http://[::1]:9/x", "http://[::1]:9"),
        ("HTTP://H/", "http://h"),
        ("", None),
        (None, None),
        ("http://[::1/", None),
        ("/path", None),
        ("http://h:bad/", None),
    ],
)
def test_the_origin_says_scheme_host_and_port_and_nothing_of_the_path(
    url: str | None, origin: str | None
) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize("server_id", ["x", "a b".replace(" ", "-"), "ü", "x" * 128, "a.b:c"])
def test_an_id_is_almost_free_text(server_id: str) -> None:
    check_server_id(server_id)


@pytest.mark.parametrize("server_id", ["", "a b", "a/b", "x" * 129, "a\x00", "a\n"])
def test_an_id_without_shape_is_refused(server_id: str) -> None:
    with pytest.raises(InvalidRequest):
        check_server_id(server_id)


@pytest.mark.parametrize("server_id", ["all-team-mcpservers", "all-proxy-mcpservers"])
def test_reserved_ids_are_refused_as_such(server_id: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_server_id(server_id)
    assert refused.value.code == "reserved_id"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": "http://u:p@h/"}, "url"),
        ({"source_url": "javascript:alert(1)"}, "source_url"),
        ({"static_headers": {"X-A": "a\r\nX-B: b"}}, "static_headers"),
        ({"static_headers": {"X-A": "\ud800"}}, "static_headers"),
        ({"static_headers": {"Host": "evil"}}, "static_headers"),
        ({"static_headers": {"Mcp-Session-Id": "1"}}, "static_headers"),
        ({"static_headers": {"X-A": "1", "x-a": "2"}}, "static_headers"),
        ({"static_headers": {"X A": "1"}}, "static_headers"),
        ({"extra_headers": ["Content-Length"]}, "extra_headers"),
        ({"env_vars": [{"name": "1abc"}]}, "env_vars"),
        ({"env_vars": [{"name": "a-b"}]}, "env_vars"),
        ({"env": {"LD_PRELOAD": "x"}}, "env"),
        ({"env": {"PATH": "x"}}, "env"),
        ({"env": {"https_proxy": "x"}}, "env"),
        ({"env": {"A": "\x00"}}, "env"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_naming_its_field(
    fields: ServerFields, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_values(fields)
    assert refused.value.field == field


def _defined(**changes: object) -> None:
    given = {
        "transport": Transport.HTTP,
        "url": None,
        "spec_path": None,
        "command": None,
        "has_args": False,
        "stdio_enabled": True,
        "stdio_commands": {"npx", "python3"},
        "no_sandbox": str,
        **changes,
    }
    check_definition(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "kind", "field"),
    [
        ({}, InvalidInput, "url"),
        ({"transport": Transport.SSE}, InvalidInput, "url"),
        ({"transport": Transport.STDIO, "has_args": True}, InvalidInput, "command"),
        ({"transport": Transport.STDIO, "command": "npx"}, InvalidInput, "args"),
        (
            {"transport": Transport.STDIO, "command": "bash", "has_args": True},
            InvalidRequest,
            "command",
        ),
        (
            {"transport": Transport.STDIO, "command": "/tmp/npx", "has_args": True},
            InvalidRequest,
            "command",
        ),
        (
            {"transport": Transport.STDIO, "command": "npx ", "has_args": True},
            InvalidRequest,
            "command",
        ),
        (
            {
                "transport": Transport.STDIO,
                "command": "npx",
                "has_args": True,
                "stdio_enabled": False,
            },
            InvalidRequest,
            "transport",
        ),
    ],
)
def test_a_definition_without_what_its_transport_needs_is_refused(
    changes: dict[str, object], kind: type[PortalError], field: str
) -> None:
    with pytest.raises(kind) as refused:
        _defined(**changes)
    assert refused.value.field == field


def test_a_definition_with_what_its_transport_needs_is_taken() -> None:
    _defined(url="http://h/")
    _defined(spec_path="http://h/openapi.json")
    _defined(transport=Transport.STDIO, command="python3", has_args=True)


def test_only_the_key_types_take_a_key() -> None:
    keyed = {auth for auth in AuthType if auth.takes_a_key}
    assert keyed == {"api_key", "bearer_token", "token", "basic", "authorization"}
    assert all(auth.label for auth in AuthType)
