"""Import over the API (behaviours CUD-25 and 26)."""

from collections.abc import Callable

import pytest

from tests.conftest import Client

As = Callable[[str | None], Client]
IMPORT = "/v1/mcp/server/import"


def names(items: list[dict[str, str]]) -> list[str]:
    return [item["server_name"] for item in items]


def test_cud_25_what_can_be_taken_is_and_the_rest_is_told(client: As) -> None:
    body = {
        "mcpServers": {
            "weather": {
                "url": "https://w.example/mcp",
                "headers": {"Authorization": "Bearer SECRET-w", "X-A": "a"},
            },
            "NOTES": {"url": "https://n.example/mcp"},
            "odd": {"type": "carrier-pigeon", "url": "https://p.example"},
        }
    }
    answer = client("ada").post(IMPORT, body)
    found = answer.get_json()
    assert answer.status_code == 200
    assert (names(found["imported"]), names(found["skipped"]), names(found["errors"])) == (
        ["weather"],
        ["NOTES"],
        ["odd"],
    )
    assert "SECRET" not in answer.get_data(as_text=True)
    server = client("ada").get(f"/v1/mcp/server/{found['imported'][0]['server_id']}").get_json()
    assert (server["auth_type"], server["static_headers"]) == ("bearer_token", {"X-A": "a"})
    assert server["credentials"] is None


def test_cud_26_names_that_become_one_are_one(client: As) -> None:
    connector = {"url": "https://d.example/mcp"}
    answer = (
        client("ada")
        .post(IMPORT, {"mcpServers": {"dup srv": connector, "dup-srv": connector}})
        .get_json()
    )
    assert (names(answer["imported"]), names(answer["skipped"]), answer["errors"]) == (
        ["dup_srv"],
        ["dup_srv"],
        [],
    )


@pytest.mark.parametrize("name", ["vera", "mel", "vic", "kit"])
def test_cud_26_only_an_admin_imports(client: As, name: str) -> None:
    assert client(name).post(IMPORT, {"mcpServers": {}}).status_code == 403
    assert client(name).post(IMPORT, data="x").status_code == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"mcpServers": []}, 422),
        ({"mcpServers": {"a": {"x": "y" * 270_000}}}, 413),
        ([1], 422),
    ],
)
def test_a_body_that_is_no_document_is_refused(client: As, body: object, status: int) -> None:
    assert client("ada").post(IMPORT, body).status_code == status


def test_secrets_become_variables_where_one_says_so(client: As) -> None:
    body = {"mcpServers": {"w": {"url": "https://w.example", "headers": {"X-Api-Key": "SECRET"}}}}
    assert client("ada").post(f"{IMPORT}?secrets=everybody", body).status_code == 422
    assert client("ada").post(f"{IMPORT}?secrets=user", body).status_code == 200
    server = client("ada").get("/v1/mcp/server/w").get_json()
    assert server["static_headers"] == {"X-Api-Key": "${X_API_KEY}"}
    assert [(v["name"], v["scope"], v["value"]) for v in server["env_vars"]] == [
        ("X_API_KEY", "user", None)
    ]
