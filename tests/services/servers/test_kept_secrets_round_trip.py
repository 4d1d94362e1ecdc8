"""Who reads an object and writes it back changes nothing, whatever is masked in what they read; and
masks are kept."""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from sqlalchemy import LargeBinary, select

from portal.services.runtime import runtime_of
from portal.services.secrets.inventory import KINDS as SEALED
from portal.store.models import Base
from tests.conftest import KEYS, Client, Portal

PATH = "/v1/mcp/server"
# What a change leaves behind even where nothing is different.
TRACES = {
    "servers": {"version", "updated_at", "updated_by"},
    "users": {"updated_at"},
    "teams": {"updated_at"},
    "api_keys": {"updated_at", "last_used_at"},
    "access_groups": {"updated_at"},
    "settings": {"updated_at", "updated_by"},
    "toolsets": {"updated_at", "updated_by", "version"},
}
OF_A_SERVER = ("server secrets", "global variables")
LEFT_OUT = {"audit_events", "sessions", "health_records"}
URL = "https://one.example/mcp?token=abc"
WORDS = ("", "plain words", "${REGION} and ${OWN}", "Bearer sk-1234567890", "ü ö \u202e", "a" * 300)


def _ids(key: Iterable[Any]) -> Callable[[dict[str, Any]], tuple[str, ...]]:
    names = [column.name for column in key]
    return lambda row: tuple(str(row[name]) for name in names)


class Tried:
    """The portal in one mode, asked by a full Admin."""

    def __init__(self, portal: Portal) -> None:
        self.ada = Client(portal.app.test_client(), {"X-API-Key": KEYS["ada"]})
        self.database = portal.database

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """All that is stored, each secret as what it says."""
        found: dict[str, list[dict[str, Any]]] = {}
        with self.database.session() as session:
            for table in Base.metadata.sorted_tables:
                if table.name in LEFT_OUT:
                    continue
                hidden = TRACES.get(table.name, set()) | {
                    c.name for c in table.c if isinstance(c.type, LargeBinary)
                }
                hidden |= {"sealed"}
                stored = session.execute(select(table)).mappings()
                rows = [
                    {k: row[k] for k in row if k not in hidden}
                    for row in stored
                    if row.get("name") != "audit_head"
                ]
                found[table.name] = sorted(rows, key=_ids(table.primary_key))
            vault = runtime_of(session).vault
            for kind in SEALED:
                opened = [
                    {"ids": v.ids, "says": vault.open(v.ciphertext, v.place)}
                    for v in kind.walk(session)
                ]
                found[kind.name] = sorted(opened, key=lambda row: row["ids"])
        return found

    def secrets(self, server_id: str) -> dict[tuple[str, str], str | None]:
        """What is stored of a server: field and entry, and what it says."""
        with self.database.session() as session:
            vault = runtime_of(session).vault
            values = [v for kind in SEALED if kind.name in OF_A_SERVER for v in kind.walk(session)]
            return {
                tuple(v.ids[1:]): vault.open(v.ciphertext, v.place)
                for v in values
                if v.ids[0] == server_id
            }


def assert_same(
    before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]
) -> None:
    """Nothing stored is different; says which columns are."""
    found = set()
    for name, rows in before.items():
        for old, new in zip(rows, after[name], strict=True):
            found |= {
                (name, key, repr(old[key]), repr(new[key])) for key in old if old[key] != new[key]
            }
    assert found == set()


@pytest.fixture(params=[False, True], ids=["readable", "write-only"])
def tried(request: pytest.FixtureRequest, portal_with: Callable[..., Portal]) -> Tried:
    return Tried(portal_with(write_only_globals=request.param, enable_stdio=True))


def bodies(seed: int) -> Iterator[dict[str, Any]]:
    """Servers of every kind, with whatever else there can be of them."""
    dice = random.Random(seed)
    credentials: dict[str, dict[str, Any]] = {
        "none": {},
        "api_key": {"auth_value": "v-1"},
        "bearer_token": {"auth_value": "v-2"},
        "token": {"auth_value": "v"},
        "basic": {"auth_value": "u:p"},
        "authorization": {"auth_value": "Custom x"},
        "oauth2": {"client_id": "c", "client_secret": "s", "scopes": ["a", "b"]},
        "oauth2_token_exchange": {
            "client_id": "c",
            "client_secret": "s",
            "audience": "x",
            "token_exchange_endpoint": "https://auth.example/exchange",
        },
        "aws_sigv4": {
            "aws_access_key_id": "A",
            "aws_secret_access_key": "B",
            "aws_region_name": "eu-central-1",
        },
    }
    for number, (auth_type, given) in enumerate(credentials.items()):
        for transport in ("http", "sse", "stdio", "openapi"):
            body: dict[str, Any] = {
                "server_id": f"{transport}-{number}",
                "auth_type": auth_type,
                "credentials": given,
            }
            body["transport"] = "http" if transport == "openapi" else transport
            if transport == "stdio":
                body |= {
                    "command": "npx",
                    "args": dice.choice([["-y", "x", "--key=abc"], ["", "b"], []]),
                }
                body["env"] = {"API_KEY": dice.choice(WORDS[:3]), "EMPTY": ""}
            elif transport == "openapi":
                body["spec_path"] = "https://api.example/openapi.json?sig=1"
                body |= dice.choice([{}, {"url": "https://api.example/v1"}])
            else:
                body["url"] = URL
            if auth_type == "oauth2":
                body |= dice.choice(
                    [
                        {},
                        {
                            "oauth2_flow": "client_credentials",
                            "token_url": "https://auth.example/t",
                        },
                        {
                            "authorization_url": "https://auth.example/a?x=1",
                            "token_url": "https://auth.example/t",
                            "registration_url": "https://auth.example/r",
                            "delegate_auth_to_upstream": True,
                        },
                    ]
                )
            elif dice.random() < 0.3:
                body |= {
                    "is_byok": True,
                    "byok_description": ["Read"],
                    "byok_api_key_help_url": "https://h.example/k",
                }
            body |= {
                "server_name": f"s_{transport}_{number}",
                "alias": dice.choice([None, f"a_{transport}_{number}"]),
                "description": dice.choice(WORDS),
                "instructions": dice.choice([None, "Do."]),
                "static_headers": {
                    "X-Region": "${REGION}",
                    "X-Key": dice.choice(WORDS[:4]),
                    "X-Own": "${OWN}",
                },
                "env_vars": [
                    {
                        "name": "REGION",
                        "value": dice.choice([None, "", "eu"]),
                        "scope": "global",
                        "description": "ours",
                    },
                    {"name": "OWN", "scope": "user", "description": dice.choice([None, "yours"])},
                    {"name": "LAST"},
                ],
                "extra_headers": dice.choice([[], ["X-Trace"]]),
                "allowed_tools": dice.choice([[], ["add"]]),
                "mcp_info": dice.choice(
                    [None, {}, {"logo_url": "https://l.example/x.png", "is_public": True}]
                ),
                "mcp_access_groups": dice.choice([[], ["tools", "other"]]),
                "timeout": dice.choice([None, 12.5, 30]),
                "tool_name_to_display_name": dice.choice([None, {}, {"add": "Add"}]),
                "token_validation": dice.choice([None, {"iss": "x"}]),
                "allow_all_keys": dice.random() < 0.5,
                "available_on_public_internet": dice.random() < 0.5,
                "source_url": dice.choice([None, "https://s.example"]),
            }
            yield body


def test_reading_a_server_and_writing_it_back_changes_nothing(tried: Tried) -> None:
    made = []
    for body in bodies(20261201):
        answer = tried.ada.post(PATH, body)
        assert answer.status_code == 201, (body, answer.get_json())
        made.append(body["server_id"])
    tried.ada.post("/v1/mcp/make_public", {"mcp_server_ids": made[::3]})
    seen = {
        row["server_id"]: row for row in tried.ada.get(PATH).get_json()
    }  # the same objects, and nobody is probed
    assert set(made) <= set(seen)
    before = tried.rows()
    for server_id, whole in seen.items():
        for body in (whole, {name: value for name, value in whole.items() if name != "version"}):
            answer = tried.ada.put(PATH, body)
            assert answer.status_code == 202, (server_id, answer.get_json())
    assert_same(before, tried.rows())


@pytest.mark.parametrize(
    "path",
    [
        "/v1/teams/crew-2",
        "/v1/users/mel",
        "/v1/keys",
        "/v1/access-groups",
        "/v1/settings",
        "/v1/mcp/toolset",
    ],
)
def test_so_it_is_with_the_other_objects(tried: Tried, path: str) -> None:
    ada = tried.ada
    if path.startswith("/v1/teams"):
        ada.post(
            "/v1/teams",
            {
                "team_id": "crew-2",
                "team_alias": "Second",
                "metadata": {"a": [1, None]},
                "members_with_roles": [{"user_id": "mel", "role": "admin"}],
            },
        )
    if path in ("/v1/keys", "/v1/access-groups"):
        sent = {
            "key_alias": "k",
            "user_id": "mel",
            "allowed_routes": ["/v1/mcp"],
            "name": "fresh",
            "description": "d",
        }
        made = ada.post(path, sent).get_json()
        path = f"{path}/{made.get('key_id') or made['access_group_id']}"
    if path == "/v1/mcp/toolset":
        made = ada.post(path, {"toolset_name": "fresh", "description": "d", "tools": []}).get_json()
        whole = ada.get(f"{path}/{made['toolset_id']}").get_json()
    else:
        whole = ada.get(path).get_json()
    before = tried.rows()
    answer = ada.put(path, whole) if path == "/v1/mcp/toolset" else ada.patch(path, whole)
    assert answer.status_code == 200, answer.get_json()
    assert_same(before, tried.rows())


MASKS = (
    None,
    "",
    "****",
    "*****",
    "**********",
    "••••••",
    "●●●●",
    "xxxxxxxx",
    "XXXX",
    "[REDACTED]",
    "<redacted>",
    "REDACTED",
    "***REDACTED***",
    "__KEEP__",
    "<hidden>",
    "(sensitive value)",
    "sk-...abcd",
    "sk-…abcd",
    "te****et",
    "abcd**ghij",
    "Bearer ****",
    "SecretStr('**********')",
    "[FILTERED]",
    "%REDACTED%",
)
FULL = {
    "server_id": "full",
    "server_name": "full",
    "transport": "http",
    "url": "https://one.example/mcp?token=abc",
    "auth_type": "oauth2",
    "authorization_url": "https://auth.example/a",
    "token_url": "https://auth.example/t",
    "registration_url": "https://auth.example/r",
    "credentials": {"client_id": "c", "client_secret": "s"},
    "static_headers": {"X-Key": "secret", "X-Two": "second"},
    "env_vars": [{"name": "ONE", "value": "1"}],
}


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_keeps_what_is_stored_in_every_field_and_is_never_stored_itself(
    tried: Tried, mask: str | None
) -> None:
    assert tried.ada.post(PATH, FULL).status_code == 201
    before = tried.secrets("full")
    changes: list[dict[str, Any]] = [
        {name: mask} for name in ("url", "authorization_url", "token_url", "registration_url")
    ]
    changes += [
        {"credentials": {"client_secret": mask}},
        {"credentials": {"client_id": "c", "client_secret": mask}},
        {"static_headers": {"X-Key": mask, "X-Two": "second"}},
        {"static_headers": {"x-key": mask, "X-Two": mask}},
        {"env_vars": [{"name": "ONE", "value": mask}]},
        dict.fromkeys(("url", "token_url"), mask),
    ]
    for change in changes:
        answer = tried.ada.put(PATH, {"server_id": "full", **change})
        assert answer.status_code == 202, (change, answer.get_json())
        assert tried.secrets("full") == before, change
    if not mask:
        return
    refused: list[tuple[dict[str, Any], str]] = [
        ({"spec_path": mask}, "spec_path"),
        ({"credentials": {"audience": mask}}, "credentials.audience"),
        ({"static_headers": {"X-New": mask}}, "static_headers"),
        ({"env_vars": [{"name": "NEW", "value": mask}]}, "env_vars"),
        ({"env": {"NEW": mask}}, "env"),
        ({"args": [mask]}, "args"),
        ({"auth_type": "api_key", "credentials": {"auth_value": mask}}, "credentials.auth_value"),
        ({"url": f"https://other.example/{mask}?key=****"}, "url"),
    ]
    for change, field in refused:
        answer = tried.ada.put(PATH, {"server_id": "full", **change})
        assert (answer.status_code, answer.get_json()["detail"]["field"]) == (422, field), change
    fresh = {"server_name": "fresh", "transport": "http", "url": "https://one.example/mcp"}
    for path in (PATH, "/v1/mcp/server/oauth/session"):
        answer = tried.ada.post(path, {**fresh, "static_headers": {"X": mask}})
        assert (answer.status_code, answer.get_json()["detail"]["field"]) == (422, "static_headers")
    assert tried.secrets("full") == before


def test_what_only_resembles_a_mask_is_a_value(tried: Tried) -> None:
    values = (
        "*/*",
        "x",
        "xx",
        "key",
        "secret",
        "a*b",
        "Bearer abc",
        "${NAME}",
        "redacted-but-real",
        "1...2.3",
        "<key>",
    )
    for number, value in enumerate(values):
        body = {
            **FULL,
            "server_id": f"value{number}",
            "server_name": f"value{number}",
            "static_headers": {"X-Key": value},
        }
        assert tried.ada.post(PATH, body).status_code == 201, value
        assert tried.secrets(f"value{number}")[("static_headers", "X-Key")] == value


def test_clear_secrets_clears_fields_and_entries(tried: Tried) -> None:
    assert tried.ada.post(PATH, FULL).status_code == 201
    whole = set(tried.secrets("full"))
    for entries, gone in (
        (["static_headers.X-Key"], {("static_headers", "X-Key")}),
        (["credentials.client_secret"], {("credentials", "client_secret")}),
        (["env_vars.ONE"], {(0,)}),  # variables are known by their place
        (
            ["registration_url", "static_headers"],
            {("registration_url", ""), ("static_headers", "X-Two")},
        ),
        (["credentials"], {("credentials", "client_id")}),
    ):
        answer = tried.ada.put(PATH, {"server_id": "full", "clear_secrets": entries})
        assert answer.status_code == 202, answer.get_json()
        whole -= gone
        assert set(tried.secrets("full")) == whole, entries
    for entries in (
        ["url"],
        ["nothing"],
        ["static_headers.X-Other"],
        ["credentials.x"],
        ["url.x"],
        ["server_name"],
    ):
        answer = tried.ada.put(PATH, {"server_id": "full", "clear_secrets": entries})
        assert answer.status_code == 422, entries
    both = {
        "server_id": "full",
        "token_url": "https://new.example/t",
        "clear_secrets": ["token_url"],
    }
    assert tried.ada.put(PATH, both).status_code == 422
    assert tried.ada.put(PATH, {"server_id": "full", "static_headers": {}}).status_code == 202, (
        "an entry left out goes"
    )
    assert set(tried.secrets("full")) == whole
