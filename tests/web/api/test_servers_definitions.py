"""What a definition must be (behaviours CUD, and the validation of `1-system.md`, 3)."""

from collections.abc import Callable

import pytest

from portal.store.models import Server
from portal.upstream.sandbox import Sandbox
from tests.conftest import KEYS, NOTES, Client, Portal, Write
from tests.support.peers import need_sandbox
from tests.web.api.test_servers_changes import PATH, PLAIN, error_of

As = Callable[[str | None], Client]


def test_lifecycle_and_derived_fields_of_the_body_are_not_taken_over(client: As) -> None:
    wishes = {
        "approval_status": "pending_review",
        "submitted_by": "x",
        "created_by": "x",
        "status": "healthy",
        "teams": ["x"],
        "is_public": True,
        "has_user_credential": True,
        "something_new": {"a": [1]},
        "version": 9,
    }
    row = client("ada").post(PATH, {**PLAIN, **wishes}).get_json()
    assert (row["approval_status"], row["submitted_by"], row["created_by"]) == (
        "active",
        None,
        "ada",
    )
    assert (row["status"], row["teams"], row["version"]) == ("unknown", [], 1)


@pytest.mark.parametrize("name", ["bad/name", "has-dash", "", " ", "a" * 65, "ü", "a\tb"])
@pytest.mark.parametrize("field", ["server_name", "alias"])
def test_cud_05_and_40_a_bad_name_is_refused_naming_the_field(
    client: As, field: str, name: str
) -> None:
    answer = client("ada").post(PATH, {**PLAIN, field: name})
    assert error_of(answer) == (400, "invalid_request", field)
    assert error_of(client("ada").put(PATH, {"server_id": NOTES, field: name})) == (
        400,
        "invalid_request",
        field,
    )
    assert len(client("ada").get(PATH).get_json()) == 1


def test_cud_05_the_message_quotes_the_bad_value(client: As) -> None:
    assert (
        "bad/name"
        in client("ada").post(PATH, {**PLAIN, "alias": "bad/name"}).get_json()["detail"]["message"]
    )


@pytest.mark.parametrize("name", ["github", "my server", "A_1", "v1.2", "x", "a" * 64])
def test_good_names_are_taken_with_spaces_made_underscores(client: As, name: str) -> None:
    row = client("ada").post(PATH, {**PLAIN, "server_name": name}).get_json()
    assert row["server_name"] == row["alias"] == name.replace(" ", "_")


@pytest.mark.parametrize("reserved", ["all-team-mcpservers", "all-proxy-mcpservers"])
def test_reserved_ids_are_refused(client: As, reserved: str) -> None:
    assert error_of(client("ada").post(PATH, {**PLAIN, "server_id": reserved})) == (
        400,
        "reserved_id",
        "server_id",
    )


def test_cud_08_a_stored_id_is_refused_and_its_row_stays(client: As) -> None:
    answer = client("ada").post(PATH, {**PLAIN, "server_id": NOTES})
    assert error_of(answer) == (400, "already_exists", "server_id")
    assert client("ada").get(PATH).get_json()[0]["server_name"] == "notes"


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"alias": "notes"}, "alias"), ({"server_name": "notes", "alias": "free"}, "server_name")],
)
def test_a_name_that_is_taken_by_any_server_is_409(
    client: As, write: Write, fields: dict[str, str], named: str
) -> None:
    assert error_of(client("ada").post(PATH, {**PLAIN, **fields})) == (409, "conflict", named)
    with write() as session:
        session.get(Server, NOTES).approval_status = "rejected"  # type: ignore[union-attr]
    assert error_of(client("ada").post(PATH, {**PLAIN, **fields})) == (409, "conflict", named)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"transport": "http"}, "url"),
        ({"transport": "sse"}, "url"),
        ({}, "url"),
        ({"transport": "http", "url": None}, "url"),
        ({"transport": "http", "url": ""}, "url"),
        ({"transport": "stdio", "args": []}, "command"),
        ({"transport": "stdio", "command": "uvx"}, "args"),
        ({"transport": "websocket", "url": "https://a.example"}, "transport"),
        ({"url": "https://a.example", "oauth2_flow": "implicit"}, "oauth2_flow"),
        ({"url": 1}, "url"),
        ({"url": "https://a.example", "is_byok": "yes"}, "is_byok"),
        ({"url": "https://a.example", "timeout": 0.5}, "timeout"),
        ({"url": "https://a.example", "timeout": 601}, "timeout"),
        ({"url": "https://a.example", "env_vars": {}}, "env_vars"),
        ({"url": "https://a.example", "static_headers": {"X": 1}}, "static_headers"),
    ],
)
def test_cud_10_12_18_43_what_has_the_wrong_shape_is_422_naming_the_field(
    client: As, body: dict[str, object], field: str
) -> None:
    answer = client("ada").post(PATH, {"alias": "plain", **body})
    assert error_of(answer) == (422, "invalid", field)
    assert answer.get_json()["detail"]["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "ftp://a.example"),
        ("url", "https://"),
        ("url", "https://user:SECRET@a.example"),
        ("url", "https://a.example/a b"),
        ("url", "https://a.example\\@b.example"),
        ("url", "javascript:alert(1)"),
        ("source_url", "javascript:alert(1)"),
        ("token_url", "nope"),
        ("static_headers", {"X A": "1"}),
        ("static_headers", {"X": "a\r\nY: b"}),
        ("static_headers", {"Host": "x"}),
        ("static_headers", {"x-a": "1", "X-A": "2"}),
        ("extra_headers", ["a b"]),
        ("env", {"LD_PRELOAD": "x"}),
        ("env", {"A-B": "x"}),
        ("env_vars", [{"name": "1abc"}]),
    ],
)
def test_a_broken_rule_is_400_naming_the_field_and_echoing_nothing(
    client: As, field: str, value: object
) -> None:
    for answer in (
        client("ada").post(PATH, {**PLAIN, field: value}),
        client("ada").put(PATH, {"server_id": NOTES, field: value}),
    ):
        assert error_of(answer) == (400, "invalid_request", field)
        assert "SECRET" not in answer.get_data(as_text=True)


@pytest.mark.parametrize("command", ["/usr/bin/python3", "./uvx", "bash", "uvx "])
def test_a_command_is_a_bare_name_from_the_list(client: As, command: str) -> None:
    answer = client("ada").post(
        PATH, {"alias": "p", "transport": "stdio", "command": command, "args": []}
    )
    assert error_of(answer) == (400, "stdio_not_allowed", "command")


def test_stdio_is_refused_where_the_operator_has_not_switched_it_on(client: As) -> None:
    answer = client("ada").post(
        PATH, {"alias": "p", "transport": "stdio", "command": "uvx", "args": ["x"]}
    )
    assert error_of(answer) == (400, "stdio_not_allowed", "transport")


@pytest.fixture
def with_stdio(portal_with: Callable[..., Portal]) -> Client:
    """Ada, asking a portal in which stdio is on and `mytool` allowed."""
    need_sandbox(Sandbox())
    allowing = portal_with(enable_stdio=True, stdio_commands=("mytool",))
    return Client(allowing.app.test_client(), {"X-API-Key": KEYS["ada"]})


def test_a_stdio_server_is_judged_as_a_whole_after_every_change(with_stdio: Client) -> None:
    body = {"server_id": "p", "alias": "p", "transport": "stdio", "command": "mytool", "args": []}
    assert with_stdio.post(PATH, body).status_code == 201
    assert (
        with_stdio.put(PATH, {"server_id": "p", "description": "with no arguments"}).status_code
        == 202
    )
    refused = with_stdio.put(PATH, {"server_id": "p", "command": "bash"})
    assert error_of(refused) == (400, "stdio_not_allowed", "command")
    assert error_of(with_stdio.put(PATH, {"server_id": "p", "command": None})) == (
        422,
        "invalid",
        "command",
    )
    assert error_of(with_stdio.put(PATH, {"server_id": "p", "transport": None})) == (
        422,
        "invalid",
        "url",
    )
    assert (
        with_stdio.put(
            PATH, {"server_id": "p", "transport": None, "url": "https://a.example"}
        ).status_code
        == 202
    )


@pytest.mark.parametrize("flow", ["client_credentials", "authorization_code", None])
def test_cud_18_the_oauth_flow_comes_back(client: As, flow: str | None) -> None:
    body = {
        **PLAIN,
        "server_id": "p",
        "auth_type": "oauth2",
        **({"oauth2_flow": flow} if flow else {}),
    }
    assert client("ada").post(PATH, body).status_code == 201
    assert client("ada").get(f"{PATH}/p").get_json()["oauth2_flow"] == flow
