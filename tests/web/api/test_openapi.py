"""The list of well-known services with an OpenAPI document (DIS-04 to DIS-06)."""

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from portal.domain.principals import OPERATOR
from portal.services.catalog import openapi
from portal.services.catalog.openapi import FILE
from portal.store.database import Database
from tests.conftest import Client

As = Callable[[str | None], Client]
PATH = "/v1/mcp/openapi-registry"
ICONS = Path(__file__).parents[3] / "static" / "icons.svg"


def test_the_list_is_for_those_with_admin_view(client: As) -> None:
    for name in ("ada", "vera"):
        assert len(client(name).get(PATH).get_json()["apis"]) == 10
    for name in ("mel", "vic", "otto", "kit"):
        assert client(name).get(PATH).status_code == 403
    assert client(None).get(PATH).status_code == 401


def test_dis_05_a_missing_or_broken_list_is_empty(
    client: As, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, text in enumerate(
        [None, "", "[", "[]", "{}", '{"apis": 1}', '{"apis": [1]}', '{"apis": [{}]}', "\0"]
    ):
        file = tmp_path / f"apis-{number}.json"
        if text is not None:
            file.write_text(text)
        monkeypatch.setattr(openapi, "FILE", file)
        answer = client("ada").get(PATH)
        assert (answer.status_code, answer.get_json()) == (200, {"apis": []})
    assert len([record for record in caplog.records if record.name == "portal.catalog"]) == 9


def test_dis_06_the_list_is_sound(database: Database) -> None:
    with database.session() as session:
        apis = openapi.list_apis(session, OPERATOR)
    assert (
        len({api.name for api in apis})
        == len(apis)
        == len(json.loads(FILE.read_text(encoding="utf-8"))["apis"])
        == 10
    )
    symbols = ICONS.read_text(encoding="utf-8")
    for api in apis:
        links = [api.spec_url, *([api.base_url] if api.base_url else [])]
        if api.oauth:
            links += [api.oauth.authorization_url, api.oauth.token_url, api.oauth.docs_url]
        for link in links:
            assert (urlsplit(link).scheme, bool(urlsplit(link).hostname)) == ("https", True), link
        assert f'id="{api.icon}"' in symbols
        assert api.description
        assert api.key_tools
        assert all(tool.name and tool.description for tool in api.key_tools)
        assert len({tool.name for tool in api.key_tools}) == len(api.key_tools)
        assert (api.oauth is not None) == (api.auth_type == "oauth2")
