"""Documents of other programs, and the servers in them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.domain.errors import PortalError
from portal.domain.import_secrets import Share, looks_secret
from portal.domain.importing import with_choices
from portal.domain.servers import AuthType, Transport
from portal.services.catalog.import_documents import parse_document


def of(text: str | dict[str, Any], share: Share = Share.KEEP) -> dict[str, Any]:
    """The definition that the first server of a document becomes."""
    document = parse_document(text if isinstance(text, str) else json.dumps(text))
    entry = document.entries[0]
    assert not entry.fault, entry.fault
    return dict(with_choices(entry, {}, share))


def fault_of(text: str | dict[str, Any]) -> str:
    return parse_document(text if isinstance(text, str) else json.dumps(text)).entries[0].fault


# Claude, Cursor, VS Code


def test_the_transport_is_what_the_file_says_or_what_its_fields_mean() -> None:
    def transport(**entry: Any) -> Transport:
        found = of({"mcpServers": {"a": entry}})["transport"]
        assert isinstance(found, Transport)
        return found

    assert transport(url="https://a.example") is Transport.HTTP
    assert transport(url="https://a.example", type="sse") is Transport.SSE
    assert transport(url="https://a.example", transport="streamable-http") is Transport.HTTP
    assert transport(command="npx") is Transport.STDIO
    assert of({"a": {"command": "npx"}})["args"] == []


def test_placeholders_in_headers_become_variables() -> None:
    headers = {
        "Authorization": "Bearer ${env:MY_TOKEN}",
        "X-Two": "${input:the-id}",
        "X-Three": "${THREE:-3}",
        "X-Four": "four",
    }
    found = of(
        {
            "servers": {"a": {"url": "https://a.example", "headers": headers}},
            "inputs": [{"id": "the-id", "description": "Say it"}],
        }
    )
    assert found["static_headers"] == {
        "Authorization": "Bearer ${MY_TOKEN}",
        "X-Two": "${THE_ID}",
        "X-Three": "${THREE}",
        "X-Four": "four",
    }
    assert [(v["name"], v["scope"], v["value"], v["description"]) for v in found["env_vars"]] == [
        ("MY_TOKEN", "user", None, None),
        ("THE_ID", "user", None, "Say it"),
        ("THREE", "global", "3", None),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {"url": "https://a.example/${input:x}"},
        {"command": "npx", "args": ["${workspaceFolder}"]},
        {"command": "npx", "env": {"K": "${env:K}"}},
    ],
)
def test_a_placeholder_where_no_variable_can_stand_is_refused(entry: dict[str, Any]) -> None:
    assert "placeholder" in fault_of({"mcpServers": {"a": entry}})


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({}, "neither a URL nor a command"),
        ({"url": "ftp://SECRET"}, "http"),
        ({"url": "https://u:SECRET@a.example"}, "user name"),
        ({"url": ["SECRET"]}, "string"),
        ({"url": "https://a.example", "headers": "SECRET"}, "object"),
        ({"url": "https://a.example", "headers": {"Host": "SECRET"}}, "not valid"),
        ({"url": "https://a.example", "headers": {"X": "a\nSECRET"}}, "line break"),
        ({"command": "npx", "env": {"LD_PRELOAD": "SECRET"}}, "is not allowed"),
        ({"type": "stdio"}, "needs a command"),
        ("SECRET", "object"),
    ],
)
def test_a_wrong_entry_is_told_without_what_stands_in_it(entry: Any, fault: str) -> None:
    found = fault_of({"mcpServers": {"a": entry}})
    assert fault in found
    assert "SECRET" not in found


def test_a_name_is_mended_where_it_can_be() -> None:
    assert (
        of({"mcpServers": {"My server/x": {"url": "https://a.example"}}})["server_name"]
        == "My_server_x"
    )
    assert "name" in fault_of({"mcpServers": {"--": {"url": "https://a.example"}}})


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "Token ", "Basic ", ""])
def test_the_scheme_of_a_secret_stays_in_the_header(scheme: str) -> None:
    found = of(
        {"a": {"url": "https://a.example", "headers": {"Authorization": f"{scheme}SECRET1"}}},
        Share.GLOBAL,
    )
    assert found["static_headers"] == {"Authorization": f"{scheme}${{A_TOKEN}}"}
    assert found["env_vars"][0]["value"] == "SECRET1"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("X-Api-Key", "x", True),
        ("X-Region", "eu-west-1", False),
        ("X-Anything", "sk-abcdefghij", True),
        ("X-Anything", "a1" * 14, True),
        ("", "https://a.example/mcp", False),
        ("Cookie", "a=b", True),
        ("X-Key", "", False),
    ],
)
def test_what_looks_like_a_secret(name: str, value: str, secret: bool) -> None:
    assert looks_secret(name, value) is secret


# The registry's server.json


def server_json(**parts: Any) -> dict[str, Any]:
    return {"name": "com.example/thing", "description": "A thing", "version": "1.0.0", **parts}


def test_a_remote_goes_before_a_package_and_streamable_http_before_sse() -> None:
    remotes = [
        {"type": "sse", "url": "https://a.example/sse"},
        {
            "type": "streamable-http",
            "url": "https://{r}.example",
            "variables": {"r": {"default": "eu"}},
        },
    ]
    found = of(
        server_json(
            remotes=remotes,
            packages=[{}],
            repository={"url": "https://git.example/x", "source": "git"},
        )
    )
    assert (found["server_name"], found["transport"], found["url"]) == (
        "thing",
        Transport.HTTP,
        "https://eu.example",
    )
    assert (found["description"], found["source_url"]) == ("A thing", "https://git.example/x")


def test_its_headers_ask_each_user_for_what_is_secret() -> None:
    headers = [
        {"name": "X-Key", "isSecret": True, "isRequired": True, "description": "Your key"},
        {
            "name": "Authorization",
            "value": "Bearer {token}",
            "variables": {"token": {"isSecret": True, "description": "T"}},
        },
        {"name": "X-Plain", "value": "eu"},
        {"name": "X-Optional"},
    ]
    found = of(
        server_json(
            remotes=[{"type": "streamable-http", "url": "https://a.example", "headers": headers}]
        )
    )
    assert found["static_headers"] == {
        "X-Key": "${X_KEY}",
        "Authorization": "Bearer ${TOKEN}",
        "X-Plain": "eu",
    }
    assert [(v["name"], v["scope"], v["description"]) for v in found["env_vars"]] == [
        ("X_KEY", "user", "Your key"),
        ("TOKEN", "user", "T"),
    ]


@pytest.mark.parametrize(
    ("package", "command", "args"),
    [
        (
            {"registryType": "npm", "identifier": "@a/b", "version": "1.2.3"},
            "npx",
            ["-y", "@a/b@1.2.3"],
        ),
        ({"registryType": "pypi", "identifier": "b", "version": "1"}, "uvx", ["b==1"]),
        ({"registryType": "oci", "identifier": "b:2"}, "docker", ["run", "-i", "--rm", "b:2"]),
    ],
)
def test_a_package_becomes_a_command(
    package: dict[str, Any], command: str, args: list[str]
) -> None:
    found = of({"servers": [{"server": server_json(packages=[package])}]})
    assert (found["transport"], found["command"], found["args"]) == (Transport.STDIO, command, args)


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        (
            {"remotes": [{"type": "streamable-http", "url": "https://{tenant}.example"}]},
            "variable without a value",
        ),
        ({"packages": [{"registryType": "nuget", "identifier": "x"}]}, "no remote and no package"),
        (
            {
                "packages": [
                    {
                        "registryType": "npm",
                        "identifier": "x",
                        "environmentVariables": [{"name": "K", "isRequired": True}],
                    }
                ]
            },
            "has no value",
        ),
    ],
)
def test_what_only_a_person_can_fill_in_is_told(parts: dict[str, Any], fault: str) -> None:
    assert fault in fault_of(server_json(**parts))


# LiteLLM's YAML


def test_litellm_yaml_says_more_of_a_server() -> None:
    found = of("""
mcp_servers:
  zap:
    url: https://zap.example/mcp
    auth_type: bearer_token
    auth_value: SECRET
    access_groups: [dev]
    allowed_tools: [a, b]
    extra_headers: [X-Trace]
    timeout: 12
    available_on_public_internet: false
    static_headers: {X-Number: 7, X-User: "${WHO}"}
    env_vars: [{name: WHO, scope: user, description: You}]
""")
    assert (found["transport"], found["auth_type"]) == (Transport.SSE, AuthType.BEARER_TOKEN)
    assert found["credentials"] == {"auth_value": "SECRET"}
    assert (found["mcp_access_groups"], found["allowed_tools"], found["extra_headers"]) == (
        ["dev"],
        ["a", "b"],
        ["X-Trace"],
    )
    assert (found["timeout"], found["available_on_public_internet"]) == (12, False)
    assert found["static_headers"] == {"X-Number": "7", "X-User": "${WHO}"}
    assert found["env_vars"] == [
        {"name": "WHO", "scope": "user", "description": "You", "value": None}
    ]


def test_our_own_environment_is_not_the_importers_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTAL_SECRET_KEY", "SECRET-of-this-process")
    token = (
        "mcp_servers: {a: {url: https://a.example, auth_type: bearer_token, auth_value:"
        " os.environ/PORTAL_SECRET_KEY}}"
    )
    found = of(token)
    assert found["static_headers"] == {"Authorization": "Bearer ${PORTAL_SECRET_KEY}"}
    assert found["env_vars"][0]["value"] is None
    assert "credentials" not in found
    assert "placeholder" in fault_of(
        "mcp_servers: {a: {url: os.environ/PORTAL_SECRET_KEY}}".replace("os", "https://x/os")
    )


@pytest.mark.parametrize(
    "bad",
    [
        "timeout: soon",
        "allow_all_keys: 1",
        "auth_type: SECRET",
        "env_vars: [SECRET]",
        "args: SECRET\n    command: npx",
    ],
)
def test_a_field_of_the_wrong_kind_is_told_by_its_name(bad: str) -> None:
    found = fault_of(f"mcp_servers:\n  a:\n    url: https://a.example\n    {bad}\n")
    assert bad.partition(":")[0] in found
    assert "SECRET" not in found


# Whatever comes


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "mcpServers",
                        "servers",
                        "mcp_servers",
                        "inputs",
                        "url",
                        "headers",
                        "env",
                        "command",
                        "args",
                        "remotes",
                        "packages",
                        "name",
                        "type",
                        "a",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=25,
    )
)
def test_no_document_breaks_the_reader(document: object) -> None:
    try:
        found = parse_document(json.dumps(document))
    except PortalError:
        return
    for entry in found.entries:
        if not entry.fault:
            with_choices(entry, {}, Share.GLOBAL)


@pytest.mark.parametrize(
    "text", ['"' + '\\"' * 100_000, "/*" * 100_000, "{" + "/*" * 100_000, '{"' + '\\"' * 100_000]
)
def test_what_is_never_closed_is_refused(text: str) -> None:
    with pytest.raises(PortalError):
        parse_document(text)
