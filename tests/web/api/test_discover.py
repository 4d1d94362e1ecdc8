"""The list of well-known servers over the API, and the file behind it (DIS-01 to DIS-05)."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portal.services.catalog import discover
from tests.conftest import Client

As = Callable[[str | None], Client]
PATH = "/v1/mcp/discover"
CATEGORIES = [
    "Cloud",
    "Communication",
    "Databases",
    "Developer Tools",
    "E-Commerce",
    "Finance",
    "Productivity",
    "Search",
    "System",
    "Web & Browser",
]


def found(client: Client, **asked: str) -> list[str]:
    answer = client.get(PATH, query_string=asked)
    assert answer.status_code == 200
    assert answer.get_json()["categories"] == CATEGORIES, "of the whole list, whatever is asked for"
    return [server["name"] for server in answer.get_json()["servers"]]


def test_dis_01_those_with_admin_view_get_the_list_and_all_categories(client: As) -> None:
    assert found(client("ada")) == found(client("vera"))
    assert len(found(client("ada"))) == 31
    assert found(client("ada"), query="no such thing") == []
    for name in ("mel", "vic", "otto", "kit"):
        assert client(name).get(PATH).status_code == 403
    assert client(None).get(PATH).status_code == 401


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"query": "BRAVE_s"}, ["brave_search"]),
        ({"query": "jira"}, ["atlassian"]),
        ({"query": "  sUbScRiPtIoNs "}, ["stripe"]),
        ({"category": "Cloud"}, ["aws", "cloudflare"]),
        ({"category": "cloud"}, []),
        ({"category": "Clou"}, []),
        ({"category": "Cloud", "query": "workers"}, ["cloudflare"]),
        ({"category": "Finance", "query": "workers"}, []),
    ],
)
def test_dis_03_the_query_is_a_part_of_the_text_and_the_category_exact(
    client: As, asked: dict[str, str], names: list[str]
) -> None:
    assert found(client("ada"), **asked) == names


def test_dis_04_every_entry_says_what_it_is_and_how_it_is_reached(client: As) -> None:
    servers: list[dict[str, Any]] = client("ada").get(PATH).get_json()["servers"]
    names = [server["name"] for server in servers]
    assert len(names) == len(set(names))
    assert {
        "github",
        "gitlab",
        "linear",
        "slack",
        "postgresql",
        "notion",
        "filesystem",
        "stripe",
    } <= set(names)
    for server in servers:
        assert all(
            server[field]
            for field in ("name", "title", "description", "category", "transport", "docs_url")
        )
        assert server["docs_url"].startswith("https://")
        if server["transport"] == "stdio":
            assert server["command"] in ("npx", "uvx")
            assert server["args"]
            assert server["url"] is None
        else:
            assert server["transport"] in ("http", "sse")
            assert server["url"].startswith("https://")
            assert server["command"] is None
        for needed in server["env_vars"]:
            assert needed["name"]
            assert needed["description"]
            assert needed["secret"] in (True, False)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        '{"servers": {}}',
        '{"servers": [{}]}',
        '{"servers": [{"transport": "fax"}]}',
        "\udcff",
    ],
)
def test_dis_05_a_file_that_is_missing_or_broken_is_an_empty_list_and_logged_once(
    client: As,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str | None,
) -> None:
    file = tmp_path / "list.json"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
    monkeypatch.setattr(discover, "FILE", file)
    is_empty_list = text == '{"servers": {}}'
    with caplog.at_level(logging.ERROR, logger="portal.catalog"):
        for _ in range(3):
            answer = client("vera").get(PATH)
            assert answer.status_code == 200
            assert answer.get_json() == {"servers": [], "categories": []}
    said = [record for record in caplog.records if record.name == "portal.catalog"]
    assert len(said) == (0 if is_empty_list else 1)
