"""What stands beside write-only variables of a command, which names are refused, and what limited
keys may not do."""

from collections.abc import Callable
from typing import Any

import pytest

from portal.domain.principals import OPERATOR
from portal.services.catalog import imports
from portal.services.secrets.server_definition import opened
from portal.store.models import Server
from tests.authorization.test_keys import BOUND
from tests.conftest import KEYS, Client, Portal, Write
from tests.support.factories import make_group, make_key, make_server

As = Callable[[str | None], Client]
PATH = "/v1/mcp/server"
NEW = "https://new.example"
ENV = {"TOKEN": "SECRET-token", "MODE": "fast"}
COMMAND: dict[str, Any] = {
    "transport": "stdio",
    "url": None,
    "command": "python3",
    "args": ["-V"],
    "env": ENV,
}


@pytest.fixture(params=[False, True], ids=["readable", "write-only"])
def portal_of(
    request: pytest.FixtureRequest, portal_with: Callable[..., Portal]
) -> tuple[bool, Any]:
    """Callers of a portal with commands, by the secret of a key; and whether values are write-only
    there."""
    other = portal_with(enable_stdio=True, write_only_globals=request.param)
    with other.database.session(writes=True) as session:
        make_server(session, "cmd", **COMMAND)
        make_server(session, "web", static_headers={"X-Key": "SECRET-key"})
        session.commit()
    return request.param, lambda key: Client(
        other.app.test_client(use_cookies=False), {"X-API-Key": key}
    )


EVIL = "https://evil.example"
ARGS = {"args": ["-V"]}
BESIDE = [
    ({"env": {"TOKEN": None, "MODE": None, "API_URL": EVIL}}, {"env.TOKEN", "env.MODE", "args"}),
    ({"env": {"TOKEN": None, "MODE": None, "API_URL": EVIL}, **ARGS}, {"env.TOKEN", "env.MODE"}),
    ({"env": {"TOKEN": None, "MODE": EVIL}}, {"env.TOKEN", "args"}),
    ({"env": {"TOKEN": None, "MODE": EVIL}, **ARGS}, {"env.TOKEN"}),
    ({"env": {"TOKEN": None}}, {"env.TOKEN", "args"}),
    ({"env": {"TOKEN": None}, **ARGS}, {"env.TOKEN"}),
    ({"clear_secrets": ["env.MODE"]}, {"env.TOKEN", "args"}),
    ({"env": {"TOKEN": None, "Mode": "slow"}}, {"env.TOKEN", "args"}),
    ({"env": {"API_URL": EVIL}}, {"args"}),
    ({"clear_secrets": ["env"]}, {"args"}),
    (
        {"env": {"TOKEN": "SECRET-new", "MODE": "slow", "API_URL": "https://x.example"}, **ARGS},
        set(),
    ),
    ({"env": {"TOKEN": None, "MODE": None}}, set()),
    ({"description": "words"}, set()),
    ({"env": {}}, {"args"}),
    ({"clear_secrets": ["env"], **ARGS}, set()),
    (ARGS, set()),
]
AWAY = {
    "http": {"transport": "http", "url": "https://mcp.example/mcp"},
    "sse": {"transport": "sse", "url": "https://mcp.example/sse"},
    "document": {"transport": "http", "spec_path": "https://mcp.example/openapi.json"},
}  # fmt: skip
"""How the server is reached while its variables change; it may be a command again afterwards."""


@pytest.mark.parametrize(("change", "named"), BESIDE)
def test_values_that_nobody_may_read_stand_beside_no_other_variables(
    portal_of: tuple[bool, Any], write: Write, change: dict[str, Any], named: set[str]
) -> None:
    hides, asking = portal_of
    refused_beside(
        asking(KEYS["ada"]), {"server_id": "id-cmd", **change}, named if hides else set()
    )
    if hides and named:
        with write() as session:
            found = opened(session, session.get_one(Server, "id-cmd"))
        assert EVIL not in found.env.values() or "args" not in named
        assert "args" in named or not {f"env.{name}" for name in found.env} & named


def refused_beside(ada: Client, body: dict[str, Any], named: set[str]) -> None:
    """A change is refused for naming these secrets, whatever is said, until they are forgotten or
    typed."""
    for said in ({}, {"keep_credentials": True}):
        answer = ada.put(PATH, {**body, **said})
        if not named:
            assert answer.status_code == 202, answer.get_json()
            return
        detail = answer.get_json()["detail"]
        assert (answer.status_code, detail["error"]) == (409, "credentials_would_move")
        assert {s["secret"] for s in detail["secrets"]} == named
    answer = ada.put(PATH, {**body, "keep_credentials": False})
    assert answer.status_code == (422 if "args" in named else 202), answer.get_json()


@pytest.mark.parametrize("portal_of", [True], indirect=True, ids=["write-only"])
@pytest.mark.parametrize("away", AWAY)
def test_a_command_that_is_reached_another_way_meanwhile_keeps_its_variables(
    portal_of: tuple[bool, Any], away: str
) -> None:
    """Nothing is started meanwhile; it would be with the next change, which moves nothing."""
    ada = portal_of[1](KEYS["ada"])
    added = BESIDE[0]
    changed = BESIDE[2]
    for change, named in (added, changed):
        refused_beside(ada, {"server_id": "id-cmd", **change, **AWAY[away]}, named)
    assert ada.put(PATH, {"server_id": "id-cmd", **AWAY[away]}).status_code == 202
    for change, named in (added, changed):
        refused_beside(ada, {"server_id": "id-cmd", **change}, named)
        refused_beside(ada, {"server_id": "id-cmd", **change, "transport": "stdio"}, named)
    assert ada.put(PATH, {"server_id": "id-cmd", "transport": "stdio"}).status_code == 202


REFUSED = (
    "UV_INDEX_URL",
    "uv_python",
    "PIP_INDEX_URL",
    "NODE_PATH",
    "NODE_EXTRA_CA_CERTS",
    "NODE_OPTIONS",
    "PYTHONPATH",
    "HOME",
    "XDG_CONFIG_HOME",
    "GCONV_PATH",
    "RUBYOPT",
    "PERL5LIB",
    "PERL5OPT",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "CLASSPATH",
    "DENO_DIR",
    "DENO_CERT",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "REQUESTS_CA_BUNDLE",
    "OPENSSL_CONF",
    "YARN_REGISTRY",
    "https_proxy",
    "NODE_TLS_REJECT_UNAUTHORIZED",
    "PYENV_ROOT",
    "PYENV_VERSION",
    "RUSTC_WRAPPER",
    "RUSTC",
    "RUSTFLAGS",
    "LESSOPEN",
    "CARGO_HOME",
    "ASDF_DATA_DIR",
    "NVM_DIR",
    "PAGER",
    "AWS_PAGER",
    "EDITOR",
)
ORDINARY = (
    "NODE_ENV",
    "API_URL",
    "GITHUB_TOKEN",
    "HOMEPAGE",
    "DOCKER_HUB_TOKEN",
    "JAVA_APP_MODE",
    "TZ",
    "DEBUG",
    "LANG",
    "UVICORN_PORT",
    "AWS_REGION",
    "DATABASE_URL",
    "PERLEY",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "LESS",
    "PAGERDUTY_TOKEN",
)


@pytest.mark.parametrize("name", [*REFUSED, *ORDINARY])
def test_a_variable_that_decides_which_code_runs_is_refused(
    portal_of: tuple[bool, Any], name: str
) -> None:
    _, asking = portal_of
    answer = asking(KEYS["ada"]).post(
        PATH, {**COMMAND, "server_name": "more", "env": {name: "SECRET-x"}}
    )
    assert answer.status_code == (400 if name in REFUSED else 201), answer.get_json()
    if name in REFUSED:
        detail = answer.get_json()["detail"]
        assert (detail["field"], name in detail["message"]) == ("env", True)


NOT_WITH_LIMITS = [
    (
        "PUT",
        {"server_id": "id-web", "url": f"{NEW}/mcp", "keep_credentials": True},
        "keep_credentials",
    ),
    ("POST", {**COMMAND, "server_name": "more"}, "commands"),
    (
        "PUT",
        {"server_id": "id-cmd", "args": ["-c", "print(1)"], "keep_credentials": False},
        "commands",
    ),
    (
        "PUT",
        {"server_id": "id-cmd", "command": "node", "args": ["x"], "keep_credentials": False},
        "commands",
    ),
    ("PUT", {"server_id": "id-cmd", "env": {"TOKEN": "x", "MODE": "y"}}, "commands"),
    (
        "PUT",
        {
            "server_id": "id-web",
            "transport": "stdio",
            "command": "python3",
            "args": ["-V"],
            "keep_credentials": False,
        },
        "commands",
    ),
]
STILL = [
    ("PUT", {"server_id": "id-web", "description": "words"}),
    ("PUT", {"server_id": "id-web", "url": f"{NEW}/mcp", "keep_credentials": False}),
    ("PUT", {"server_id": "id-cmd", "description": "words"}),
    ("POST", {"server_name": "more", "url": f"{NEW}/mcp"}),
]
LIMITS = (*BOUND, {"routes": ("/v1/mcp",)})


@pytest.mark.parametrize("bound", LIMITS, ids=str)
def test_a_limited_key_of_an_admin_moves_no_secret_and_makes_no_command(
    portal_of: tuple[bool, Any], write: Write, bound: dict[str, Any]
) -> None:
    hides, asking = portal_of
    if hides:
        return
    reach = (
        {}
        if "routes" in bound
        else {"mcp_servers": ("id-cmd", "id-web", *bound.get("mcp_servers", ()))}
    )
    with write() as session:
        group = make_group(session, "some", ("id-cmd", "id-web"))
        groups = {"groups": (group,)} if "groups" in bound else {}
        key = make_key(session, user_id="ada", **{**bound, **reach, **groups})
    for method, body, word in NOT_WITH_LIMITS:
        answer = asking(key).ask(method, PATH, json=body)
        assert answer.status_code == 403, (body, answer.get_json())
        assert word in answer.get_json()["detail"]["message"]
    for method, body in STILL:
        answer = asking(key).ask(method, PATH, json=body)
        assert answer.status_code in (201, 202), (body, answer.get_json())
    for method, body, _ in NOT_WITH_LIMITS[2:3]:
        assert asking(KEYS["ada"]).ask(method, PATH, json=body).status_code == 202


def test_a_document_of_the_operator_still_does(portal_of: tuple[bool, Any], write: Write) -> None:
    with write() as session:
        outcome = imports.import_text(
            session,
            OPERATOR,
            '{"mcpServers": {"web": {"url": "https://n.example/mcp"}}}',
            update=True,
            keep=True,
        )
    assert outcome.errors == ()
