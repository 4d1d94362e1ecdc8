"""What each sees of a server (behaviours RED, and the table of `1-system.md`, 5)."""

from collections.abc import Callable

import pytest

from portal.authorization import VISIBLE_FIELDS
from portal.services.servers.destinations import write_definition
from portal.services.servers.views import ServerView
from portal.store.models import Server
from tests.conftest import CREW, KEYS, Client, Portal, Write
from tests.support.factories import make_server

As = Callable[[str | None], Client]
MASK = "••••••"
FULL = {
    "server_id": "id-full",
    "server_name": "full",
    "description": "all of it",
    "instructions": "use it well",
    "url": "https://full.example/SECRET-path?key=SECRET",
    "spec_path": "https://spec.example/SECRET.json",
    "transport": "http",
    "auth_type": "bearer_token",
    "credentials": {
        "auth_value": "SECRET-token",
        "client_id": "SECRET-id",
        "scopes": ["SECRET-scope"],
    },
    "mcp_info": {"logo_url": "https://logo.example/l.png", "anything": 1},
    "mcp_access_groups": ["tools"],
    "allowed_tools": ["add"],
    "tool_name_to_display_name": {"add": "Add up"},
    "tool_name_to_description": {"add": "Adds"},
    "extra_headers": ["X-Caller"],
    "static_headers": {"X-Key": "SECRET-header", "X-Own": "${OWN} ${SHARED}"},
    "env_vars": [
        {"name": "SHARED", "value": "SECRET-global", "description": "ours"},
        {"name": "OWN", "scope": "user", "description": "yours"},
    ],
    "authorization_url": "https://auth.example/SECRET",
    "token_url": "https://auth.example/SECRET/token",
    "registration_url": "https://auth.example/SECRET/register",
    "token_validation": {"aud": "portal"},
    "source_url": "https://source.example/repo",
    "timeout": 30,
    "is_byok": True,
    "byok_description": ["make a key"],
    "byok_api_key_help_url": "https://help.example",
}
COMMAND = {"args": ["--token", "SECRET-arg"], "env": {"TOKEN": "SECRET-env"}}

# The golden table: who sees a field how. "yes" verbatim, "origin" a URL without its path, "names" a
# mapping with its values masked, "no values" variables without theirs; a blank is the empty value
# of the field's type. Admin     Read-only admin  Member      Viewer      restricted key
TABLE = {
    "server_id":              ("yes",    "yes",           "yes",      "yes",      "yes"),
    "server_name":            ("yes",    "yes",           "yes",      "yes",      "yes"),
    "alias":                  ("yes",    "yes",           "yes",      "yes",      "yes"),
    "description":            ("yes",    "yes",           "yes",      "yes",      "yes"),
    "transport":              ("yes",    "yes",           "yes",      "yes",      "yes"),
    "auth_type":              ("yes",    "yes",           "yes",      "yes",      "yes"),
    "is_byok":                ("yes",    "yes",           "yes",      "yes",      "yes"),
    "byok_description":       ("yes",    "yes",           "yes",      "yes",      "yes"),
    "byok_api_key_help_url":  ("yes",    "yes",           "yes",      "yes",      "yes"),
    "has_user_credential":    ("yes",    "yes",           "yes",      "yes",      "yes"),
    "instructions":           ("yes",    "yes",           "yes",      "yes",      ""),
    "mcp_access_groups":      ("yes",    "yes",           "yes",      "yes",      ""),
    "teams":                  ("yes",    "yes",           "yes",      "yes",      ""),
    "allowed_tools":          ("yes",    "yes",           "yes",      "yes",      ""),
    "tool_name_to_display_name": ("yes", "yes",           "yes",      "yes",      ""),
    "tool_name_to_description": ("yes",  "yes",           "yes",      "yes",      ""),
    "source_url":             ("yes",    "yes",           "yes",      "yes",      ""),
    "timeout":                ("yes",    "yes",           "yes",      "yes",      ""),
    "status":                 ("yes",    "yes",           "yes",      "yes",      ""),
    "health_check_reason":    ("yes",    "yes",           "yes",      "yes",      ""),
    "approval_status":        ("yes",    "yes",           "yes",      "yes",      ""),
    "created_at":             ("yes",    "yes",           "yes",      "yes",      ""),
    "created_by":             ("yes",    "yes",           "yes",      "yes",      ""),
    "updated_at":             ("yes",    "yes",           "yes",      "yes",      ""),
    "updated_by":             ("yes",    "yes",           "yes",      "yes",      ""),
    "version":                ("yes",    "yes",           "yes",      "yes",      ""),
    "mcp_info":               ("yes",    "yes",           "yes",      "yes",      ""),
    "url":                    ("yes",    "origin",        "",         "",         ""),
    "spec_path":              ("yes",    "origin",        "",         "",         ""),
    "authorization_url":      ("yes",    "origin",        "",         "",         ""),
    "token_url":              ("yes",    "origin",        "",         "",         ""),
    "registration_url":       ("yes",    "origin",        "",         "",         ""),
    "origins":                ("yes",    "yes",           "",         "",         ""),
    "static_headers":         ("yes",    "names",         "",         "",         ""),
    "env":                    ("yes",    "names",         "",         "",         ""),
    "extra_headers":          ("yes",    "yes",           "",         "",         ""),
    "command":                ("yes",    "yes",           "",         "",         ""),
    "token_validation":       ("yes",    "yes",           "",         "",         ""),
    "env_vars":               ("yes",    "no values",     "",         "",         ""),
    "args":                   ("yes",    "",              "",         "",         ""),
    "credentials":            ("",       "",              "",         "",         ""),
}  # fmt: skip
PEOPLE = ("ada", "vera", "mel", "vic", "kit")


@pytest.fixture
def catalog(write: Write) -> None:
    """The two servers above."""
    with write() as session:
        make_server(session, "full", **FULL)
        # Straight into the rows: stdio is switched off here, as it is by default.
        row = Server(
            server_id="id-command",
            server_name="command",
            alias="command",
            transport="stdio",
            sort_key="c",
        )
        session.add(row)
        session.flush()
        write_definition(
            session, row, {"command": "uvx", "args": COMMAND["args"], "env": COMMAND["env"]}
        )  # type: ignore[typeddict-item]


def grant_all(client: As) -> None:
    permission = {"mcp_servers": ["id-notes", "id-full", "id-command"]}
    assert (
        client("ada").patch(f"/v1/teams/{CREW}", {"object_permission": permission}).status_code
        == 200
    )


def _expected(kind: str, field: str, verbatim: object) -> object:
    if kind == "yes":
        return verbatim
    if kind == "origin" and isinstance(verbatim, str):
        return "/".join(verbatim.split("/")[:3])
    if kind == "names" and isinstance(verbatim, dict):
        return dict.fromkeys(verbatim, MASK)
    if kind == "no values" and isinstance(verbatim, list):
        blank = [{**v, "value": "" if v["scope"] == "global" else None} for v in verbatim]
        return [{**v, "is_set": True} if v["scope"] == "global" else v for v in blank]
    return verbatim if kind == "origin" else {"teams": [], "args": [], "env": {}}.get(field)


@pytest.mark.usefixtures("catalog")
def test_the_golden_table_of_section_5(client: As) -> None:
    grant_all(client)
    seen = {
        n: {r["server_id"]: r for r in client(n).get("/v1/mcp/server").get_json()} for n in PEOPLE
    }
    for server_id in ("id-full", "id-command"):
        admin = seen["ada"][server_id]
        for field, row in TABLE.items():
            for name, kind in zip(PEOPLE, row, strict=True):
                shown = seen[name][server_id][field]
                wanted = _expected(kind, field, admin[field])
                assert (shown or None) == (wanted or None), (
                    f"{name} sees {field} of {server_id} as {shown!r}"
                )
                if not kind:
                    assert shown in (None, [], {}), f"{field} keeps its type for {name}"


def test_every_field_of_a_server_is_in_the_table_or_shown_to_the_same_people_as_a_neighbor() -> (
    None
):
    plain = {
        "oauth2_flow",
        "allow_all_keys",
        "available_on_public_internet",
        "delegate_auth_to_upstream",
        "oauth_passthrough",
        "last_health_check",
        "health_check_error",
        "submitted_by",
        "submitted_at",
        "reviewed_by",
        "reviewed_at",
        "review_notes",
    }
    fields = set(ServerView.__dataclass_fields__)
    assert fields == set(TABLE) | plain
    assert set(VISIBLE_FIELDS) == fields - {"credentials"}


@pytest.mark.usefixtures("catalog")
def test_the_admin_reads_what_was_written(client: As) -> None:
    """RED-04, RED-09: url, headers, env and global values come back verbatim."""
    full, command = (
        client("ada").get(f"/v1/mcp/server/{i}").get_json() for i in ("id-full", "id-command")
    )
    same = set(FULL) - {"credentials", "env_vars", "mcp_access_groups", "mcp_info"}
    assert {name: full[name] for name in same} == {name: FULL[name] for name in same}
    assert full["env_vars"] == [
        {"name": "SHARED", "value": "SECRET-global", "scope": "global", "description": "ours"},
        {"name": "OWN", "value": None, "scope": "user", "description": "yours"},
    ]
    assert (command["command"], command["args"], command["env"]) == (
        "uvx",
        COMMAND["args"],
        COMMAND["env"],
    )


@pytest.mark.usefixtures("catalog")
@pytest.mark.parametrize("name", ["vera", "mel", "vic", "kit"])
def test_nobody_but_the_admin_is_sent_anything_secret(client: As, name: str) -> None:
    grant_all(client)
    for path in ("/v1/mcp/server", "/v1/mcp/server/id-full", "/v1/mcp/server/id-command"):
        answer = client(name).get(path)
        assert answer.status_code == 200
        assert "SECRET" not in answer.get_data(as_text=True)


@pytest.mark.usefixtures("catalog")
def test_red_01_credentials_are_null_for_everybody_and_stay_stored(
    client: As, write: Write
) -> None:
    for path in ("/v1/mcp/server", "/v1/mcp/server/id-full"):
        for name in ("ada", "vera"):
            answer = client(name).get(path)
            rows = answer.get_json() if isinstance(answer.get_json(), list) else [answer.get_json()]
            assert all(row["credentials"] is None for row in rows)
    with write() as session:
        stored = {
            s.name for s in session.get(Server, "id-full").secrets if s.field == "credentials"
        }  # type: ignore[union-attr]
    assert stored == {"auth_value", "client_id", "scopes"}


def test_red_17_answers_to_writes_hold_no_credentials(client: As) -> None:
    body = {
        "server_id": "s",
        "url": "https://a.example",
        "auth_type": "api_key",
        "credentials": {"auth_value": "x"},
    }
    created = client("ada").post("/v1/mcp/server", body)
    changed = client("ada").put(
        "/v1/mcp/server", {"server_id": "s", "credentials": {"auth_value": "y"}}
    )
    assert (created.status_code, created.get_json()["credentials"]) == (201, None)
    assert (changed.status_code, changed.get_json()["credentials"]) == (202, None)


def test_red_06_a_restricted_key_learns_of_mcp_info_only_whether_the_server_is_public(
    client: As, write: Write
) -> None:
    body = {"server_id": "id-notes", "mcp_info": {"anything": "SECRET", "is_public": True}}
    assert client("ada").put("/v1/mcp/server", body).status_code == 202
    assert client("kit").get("/v1/mcp/server").get_json()[0]["mcp_info"] is None
    client("ada").post("/v1/mcp/make_public", {"mcp_server_ids": ["id-notes"]})
    assert client("kit").get("/v1/mcp/server").get_json()[0]["mcp_info"] == {"is_public": True}
    assert client("mel").get("/v1/mcp/server").get_json()[0]["mcp_info"] == {
        "anything": "SECRET",
        "is_public": True,
    }


def test_write_only_globals_hide_values_from_the_admin_too(
    portal_with: Callable[..., Portal],
) -> None:
    hiding = portal_with(write_only_globals=True)
    with hiding.database.session(writes=True) as session:
        make_server(session, "full", **FULL)
        session.commit()
    asking = Client(hiding.app.test_client(), {"X-API-Key": KEYS["ada"]})
    answer = asking.get("/v1/mcp/server/id-full")
    row = answer.get_json()
    assert "SECRET" not in answer.get_data(as_text=True)
    assert (row["url"], row["static_headers"]) == ("", {"X-Key": "", "X-Own": ""})
    assert row["env_vars"][0] == {
        "name": "SHARED",
        "value": "",
        "scope": "global",
        "description": "ours",
        "is_set": True,
    }


@pytest.mark.usefixtures("catalog")
def test_a_health_error_names_the_host_only_to_those_with_admin_view(client: As) -> None:
    with_host = client("ada").get("/v1/mcp/server/id-notes").get_json()
    assert "127.0.0.1" in with_host["health_check_error"]
    told = client("mel").get("/v1/mcp/server/id-notes").get_json()["health_check_error"]
    assert told == "The server refused the connection."
    assert client("kit").get("/v1/mcp/server/id-notes").get_json()["health_check_error"] is None
