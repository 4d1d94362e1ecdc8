"""Servers with an OpenAPI document: their tools are listed and called against the real service."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Client, Write
from tests.support.described import Service, document, pet_store
from tests.support.factories import make_server

As = Callable[[str | None], Client]
CALL = "/v1/mcp/tools/call"
TOOLS = "/v1/mcp/tools"
SERVER = "/v1/mcp/server"
SECRET = "SECRET-key-of-the-pet-store"


@pytest.fixture
def pets() -> Iterator[Service]:
    with pet_store() as service:
        yield service


def add(write: Write, service: Service, **fields: Any) -> None:
    with write() as session:
        make_server(
            session,
            "pets",
            **{"url": None, "spec_path": service.spec_url, "allow_all_keys": True, **fields},
        )


def call(client: Client, name: str, **arguments: Any) -> Any:
    return client.post(CALL, {"server_id": "id-pets", "name": name, "arguments": arguments})


def test_the_operations_are_listed_as_tools(client: As, write: Write, pets: Service) -> None:
    add(write, pets)
    tools = {tool["name"]: tool for tool in client("otto").get(TOOLS).get_json()["tools"]}
    assert list(tools) == ["pets-list_pets", "pets-addPet", "pets-getPet", "pets-delete_pets_id"]
    assert tools["pets-list_pets"]["description"] == "List pets"
    assert set(tools["pets-list_pets"]["inputSchema"]["properties"]) == {"tag", "X-Trace", "seen"}
    assert tools["pets-getPet"]["inputSchema"]["required"] == ["id"]
    body = tools["pets-addPet"]["inputSchema"]["properties"]["body"]
    assert body["properties"]["parent"] == {"description": "Recursive: same schema as above."}
    assert tools["pets-delete_pets_id"]["annotations"]["destructiveHint"] is True


def test_a_call_reaches_the_service(client: As, write: Write, pets: Service) -> None:
    add(write, pets)
    found = call(
        client("otto"), "list_pets", tag=["a b", "c"], seen=True, **{"X-Trace": "t1"}
    ).get_json()
    told = found["structuredContent"]
    assert (found["isError"], told["tags"], told["headers"]["x-trace"]) == (
        False,
        ["a b", "c"],
        "t1",
    )
    assert told["cookies"] == {"seen": "true"}
    assert (
        call(client("otto"), "getPet", id="a/b").get_json()["structuredContent"]["name"] == "Slash"
    )
    added = call(client("otto"), "addPet", body={"name": "Bo"}).get_json()
    assert added["structuredContent"] == {"added": {"name": "Bo"}}
    assert call(client("otto"), "delete_pets_id", id="7").get_json()["content"] == [
        {"type": "text", "text": ""}
    ]
    assert [request.path for request in pets.calls()] == [
        "/api/v1/pets",
        "/api/v1/pets/a/b",
        "/api/v1/pets",
        "/api/v1/pets/7",
    ]


def test_a_wrong_call_is_a_result_and_goes_nowhere(client: As, write: Write, pets: Service) -> None:
    add(write, pets)
    for name, arguments, words in (
        ("getPet", {}, "The argument id is required."),
        ("getPet", {"id": ".."}, "must not be empty"),
        ("getPet", {"id": "7", "admin": 1}, "Unknown argument: admin."),
        ("addPet", {}, "The argument body is required."),
        ("list_pets", {"X-Trace": "a\r\nHost: b"}, "characters that are not allowed"),
        ("no_such", {}, "The document has no operation no_such"),
    ):
        answer = call(client("otto"), name, **arguments)
        found = answer.get_json()
        assert (answer.status_code, found["isError"]) == (200, True)
        assert words in found["content"][0]["text"]
    assert pets.calls() == []


@pytest.mark.parametrize(
    ("auth_type", "header", "value"),
    [
        ("bearer_token", "Authorization", f"Bearer {SECRET}"),
        ("token", "Authorization", f"token {SECRET}"),
        ("authorization", "Authorization", SECRET),
        ("api_key", "X-API-Key", SECRET),
    ],
)
def test_a_call_is_signed_in_and_the_secret_does_not_come_back(
    client: As, write: Write, pets: Service, auth_type: str, header: str, value: str
) -> None:
    variables = [{"name": "TEAM", "scope": "global", "value": "crew-of-SECRET"}]
    add(
        write,
        pets,
        auth_type=auth_type,
        credentials={"auth_value": SECRET},
        env_vars=variables,
        static_headers={"X-Team": "${TEAM}"},
    )
    answer = call(client("otto"), "list_pets")
    assert pets.calls()[0].headers[header] == value
    assert pets.calls()[0].headers["X-Team"] == "crew-of-SECRET"
    assert "SECRET" not in answer.get_data(as_text=True)
    failed = call(client("otto"), "getPet", id="nobody").get_json()
    assert failed["isError"] is True
    assert failed["content"][0]["text"].startswith("HTTP 404 Not Found: ")
    assert "SECRET" not in str(failed)


def test_an_argument_does_not_replace_what_signs_in(
    client: As, write: Write, pets: Service
) -> None:
    add(write, pets, static_headers={"x-trace": "ours"})
    call(client("otto"), "list_pets", **{"X-Trace": "theirs"})
    assert pets.calls()[0].headers["X-Trace"] == "ours"


def test_a_persons_own_key_and_values_are_sent(client: As, write: Write, pets: Service) -> None:
    add(write, pets, auth_type="bearer_token", is_byok=True)
    assert call(client("otto"), "list_pets").status_code == 401
    client("otto").post(f"{SERVER}/id-pets/user-credential", {"credential": SECRET})
    assert call(client("otto"), "list_pets").status_code == 200
    assert pets.calls()[0].headers["Authorization"] == f"Bearer {SECRET}"
    client("ada").put(
        SERVER,
        {
            "server_id": "id-pets",
            "is_byok": False,
            "static_headers": {"X-Me": "${ME}"},
            "env_vars": [{"name": "ME", "scope": "user"}],
        },
    )
    assert call(client("otto"), "list_pets").status_code == 412


def test_the_allow_list_holds(client: As, write: Write, pets: Service) -> None:
    add(write, pets, allowed_tools=["getPet"])
    assert [t["name"] for t in client("otto").get(TOOLS).get_json()["tools"]] == ["pets-getPet"]
    assert call(client("otto"), "addPet", body={}).status_code == 403
    assert call(client("otto"), "pets-getPet", id="7").get_json()["isError"] is False


def test_a_document_that_points_elsewhere_gets_no_secret(
    client: As, write: Write, pets: Service
) -> None:
    """R-SSRF-12: what signs in is bound to the document's origin, and then to the base URL that an
    Admin sets."""
    with pet_store() as other:
        add(write, pets, auth_type="bearer_token", credentials={"auth_value": SECRET})
        pets.serve(document(servers=[{"url": f"{other.origin}/api/v1"}]))
        answer = call(client("ada"), "list_pets")
        detail = answer.get_json()["detail"]
        assert (answer.status_code, detail["reason"]) == (502, "blocked")
        assert "An Admin can allow this by setting the base URL." in detail["message"]
        moved = {"server_id": "id-pets", "url": f"{other.origin}/api/v1"}
        refused = client("ada").put(SERVER, moved)
        assert (refused.status_code, refused.get_json()["detail"]["error"]) == (
            409,
            "credentials_would_move",
        )
        assert other.seen == []
        assert client("ada").put(SERVER, {**moved, "keep_credentials": True}).status_code == 202
        assert call(client("ada"), "list_pets").get_json()["isError"] is False
        assert other.calls()[0].headers["Authorization"] == f"Bearer {SECRET}"
        assert all("Authorization" not in request.headers for request in pets.seen)


def test_credentials_do_not_move_with_the_document(client: As, write: Write, pets: Service) -> None:
    add(write, pets, auth_type="bearer_token", credentials={"auth_value": SECRET})
    answer = client("ada").put(
        SERVER, {"server_id": "id-pets", "spec_path": "https://elsewhere.example/openapi.json"}
    )
    assert (answer.status_code, answer.get_json()["detail"]["error"]) == (
        409,
        "credentials_would_move",
    )
    same_origin = {
        "server_id": "id-pets",
        "spec_path": f"{pets.origin}/openapi.json?v=2",
        "url": f"{pets.origin}/api/v1",
    }
    assert client("ada").put(SERVER, same_origin).status_code == 202


def test_a_locked_document_is_fetched_with_the_key_at_its_own_origin_only(
    client: As, write: Write, pets: Service
) -> None:
    pets.locked = True
    add(write, pets, auth_type="bearer_token", credentials={"auth_value": SECRET})
    assert client("otto").get(TOOLS).get_json()["tools"]
    assert ["Authorization" in request.headers for request in pets.seen] == [False, True]
    with pet_store() as other:
        keep = {"url": f"{other.origin}/api/v1", "keep_credentials": True}
        assert client("ada").put(SERVER, {"server_id": "id-pets", **keep}).status_code == 202
        pets.seen.clear()
        assert client("otto").get(TOOLS).get_json()["tools"] == []
        assert ["Authorization" in request.headers for request in pets.seen] == [False]


def test_hlt_08_a_described_server_is_judged_by_its_document(
    client: As, write: Write, pets: Service
) -> None:
    add(write, pets, url=f"{pets.origin}/api/v1")
    rows = client("ada").get(f"{SERVER}/health").get_json()
    assert next(row["status"] for row in rows if row["server_id"] == "id-pets") == "healthy"
    assert [request.path for request in pets.seen] == ["/openapi.json"]
