"""A catalog in which everything that can be a secret holds a marker: through the API and through
the pages' forms."""

import json
from typing import Any

from tests.support.security.callers import GROUP, Caller, World
from tests.support.security.marks import DEFINITION, NEVER, Marks

HEADER_TEMPLATE = "{mark} ${{CORP_TOKEN}}"
FAILURES = ("401", "500", "302", "html", "rpc", "cut")


class Planter:
    """Adds servers as Ada, over the API or with the form; every answer is looked through."""

    def __init__(self, world: World, marks: Marks, upstream: str) -> None:
        self.world, self.marks, self.upstream = world, marks, upstream
        self.ids: list[str] = []

    def shared(self, what: str) -> str:
        """A marker in what a full Admin may read over the API."""
        return self.marks.new(DEFINITION, what)

    def sealed(self, what: str) -> str:
        """A marker in what nobody may read."""
        return self.marks.new(NEVER, what)

    def url(self, what: str, how: str = "html", origin: str | None = None) -> str:
        """An address with a marker in its path and one in its query."""
        base = origin or f"{self.upstream}/{how}"
        return f"{base}/{self.shared(f'{what}: path')}/mcp?token={self.shared(f'{what}: query')}"

    def by_api(self, name: str, **fields: Any) -> None:
        """POST a server that the team may use."""
        body = {
            "server_id": f"a-{name}",
            "server_name": f"a_{name}",
            "transport": "http",
            "mcp_access_groups": [GROUP],
        }
        admin = self.world.callers["k-admin"]
        answer = self.marks.read(
            admin, admin.ask("POST", "/v1/mcp/server", json={**body, **fields})
        )
        assert answer.status_code == 201, answer.get_data(as_text=True)
        self.ids.append(f"a-{name}")

    def by_page(self, name: str, **fields: str) -> None:
        """Send the form for a new server that the team may use."""
        form = {
            "server_name": f"p_{name}",
            "transport": "http",
            "auth_type": "none",
            "oauth2_flow": "",
            "save": "yes",
            "access_groups": GROUP,
            "available_on_public_internet": "y",
        }
        admin = self.world.callers["admin"]
        answer = self.marks.read(admin, admin.ask("POST", "/servers/new", data={**form, **fields}))
        assert answer.status_code == 303, answer.get_data(as_text=True)
        self.ids.append(answer.headers["Location"].rsplit("/", 1)[-1])


def headers_by_api(planter: Planter, what: str) -> dict[str, Any]:
    """Headers with a literal, a global and a per-user part."""
    return {
        "static_headers": {
            "X-Corp": HEADER_TEMPLATE.format(mark=planter.shared(f"{what}: header")),
            "X-Region": "${REGION}",
        },
        "env_vars": [
            {"name": "REGION", "value": planter.shared(f"{what}: global value"), "scope": "global"},
            {"name": "CORP_TOKEN", "scope": "user", "description": "Ask the desk."},
        ],
    }


def headers_by_page(planter: Planter, what: str) -> dict[str, str]:
    """The same as rows of the form."""
    return {
        "headers-0-name": "X-Corp",
        "headers-0-value": HEADER_TEMPLATE.format(mark=planter.shared(f"{what}: header")),
        "headers-1-name": "X-Region",
        "headers-1-value": "${REGION}",
        "variables-0-name": "REGION",
        "variables-0-scope": "global",
        "variables-0-value": planter.shared(f"{what}: global value"),
        "variables-1-name": "CORP_TOKEN",
        "variables-1-scope": "user",
        "variables-1-description": "Ask the desk.",
    }


def credentials(planter: Planter, what: str, *names: str) -> dict[str, str]:
    """Credentials by name, each a marker."""
    return {name: planter.sealed(f"{what}: {name}") for name in names}


OAUTH = ("client_id", "client_secret")
EXCHANGE = (*OAUTH, "audience", "subject_token_type")
AWS = (
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_region_name",
    "aws_service_name",
    "aws_role_name",
    "aws_session_name",
)


def plant_by_api(planter: Planter, echo: str) -> None:
    """One server of each kind, through the API."""
    shared = planter.shared
    sealed = planter.sealed
    url = planter.url
    for how in FAILURES:
        planter.by_api(
            f"http_{how}",
            url=url(f"api {how}", how),
            auth_type="bearer_token",
            credentials=credentials(planter, f"api {how}", "auth_value"),
            static_headers={"X-Key": shared(f"api {how}: header")},
        )
    planter.by_api(
        "personal",
        url=url("api personal"),
        **headers_by_api(planter, "api personal"),
        auth_type="basic",
        credentials=credentials(planter, "api personal", "auth_value"),
    )
    planter.by_api(
        "echo",
        url=f"{echo}?token={shared('api echo: url')}",
        **headers_by_api(planter, "api echo"),
        auth_type="api_key",
        credentials=credentials(planter, "api echo", "auth_value"),
    )
    planter.by_api("refused", url=url("api refused", origin="http://127.0.0.1:9"))
    planter.by_api("nameless", url=url("api nameless", origin="http://no-such-host.invalid"))
    planter.by_api("tls", url=url("api tls", origin=planter.upstream.replace("http:", "https:")))
    planter.by_api(
        "spec",
        spec_path=f"{planter.upstream}/500/{shared('api spec: spec_path')}/openapi.json",
        static_headers={"X-Key": shared("api spec: header")},
    )
    planter.by_api(
        "oauth",
        url=url("api oauth"),
        auth_type="oauth2",
        oauth2_flow="authorization_code",
        credentials={
            **credentials(planter, "api oauth", *OAUTH),
            "scopes": [sealed("api oauth: scope")],
        },
        authorization_url=url("api oauth: authorization_url"),
        token_url=url("api oauth: token_url"),
        registration_url=url("api oauth: registration_url"),
    )
    planter.by_api(
        "exchange",
        url=url("api exchange"),
        auth_type="oauth2_token_exchange",
        credentials={
            **credentials(planter, "api exchange", *EXCHANGE),
            "token_exchange_endpoint": f"{planter.upstream}/{sealed('api exchange: endpoint')}",
        },
    )
    planter.by_api(
        "aws",
        url=url("api aws"),
        auth_type="aws_sigv4",
        credentials=credentials(planter, "api aws", *AWS),
    )
    planter.by_api(
        "stdio",
        transport="stdio",
        command="python3",
        args=["-c", f"'{shared('api stdio: args')}' + 1"],
        env={"API_TOKEN": shared("api stdio: env")},
    )
    planter.by_api(
        "byok",
        url=url("api byok", "401"),
        auth_type="token",
        is_byok=True,
        static_headers={"X-Key": shared("api byok: header")},
    )


def plant_by_page(planter: Planter) -> None:
    """One server of each kind, through the form."""
    shared = planter.shared
    url = planter.url
    planter.by_page(
        "personal",
        url=url("page personal"),
        **headers_by_page(planter, "page personal"),
        auth_type="authorization",
        **credentials(planter, "page personal", "auth_value"),
    )
    planter.by_page(
        "oauth",
        url=url("page oauth"),
        auth_type="oauth2",
        oauth2_flow="client_credentials",
        **credentials(planter, "page oauth", *OAUTH, "scopes"),
        authorization_url=url("page oauth: authorization_url"),
        token_url=url("page oauth: token_url"),
        registration_url=url("page oauth: registration_url"),
    )
    planter.by_page(
        "aws", url=url("page aws"), auth_type="aws_sigv4", **credentials(planter, "page aws", *AWS)
    )
    planter.by_page(
        "stdio",
        transport="stdio",
        command="python3",
        args=f"-c\n'{shared('page stdio: args')}' + 1",
        **{"env-0-name": "API_TOKEN", "env-0-value": shared("page stdio: env")},
    )
    planter.by_page("byok", url=url("page byok", "401"), auth_type="bearer_token", is_byok="y")


def plant_people(planter: Planter) -> dict[str, str]:
    """What people store, and keys and passwords that are set; answers Mel's and Vic's values for
    the echo server."""
    marks = planter.marks
    callers = planter.world.callers
    values = {name: planter.sealed(f"value of {name}") for name in ("k-member", "k-viewer")}
    for name, value in values.items():
        _expect(
            marks,
            callers[name],
            "/v1/mcp/server/a-echo/user-env-vars",
            200,
            json={"values": {"CORP_TOKEN": value}},
        )
    path = "/v1/mcp/server/a-personal/user-env-vars"
    for name in ("k-member", "admin"):
        value = planter.sealed(f"personal value of {name}")
        _expect(
            marks,
            callers[name],
            path,
            200,
            json={"values": {"CORP_TOKEN": value, "UNDECLARED": value}},
        )
    page = next(i for i in planter.ids if not i.startswith("a-"))
    for name in ("member", "viewer", "reader"):
        form = {"value-CORP_TOKEN": planter.sealed(f"value of {name} by page"), "then": "test"}
        _expect(marks, callers[name], f"/credentials/{page}", 303, data=form)
    for name, server in (("k-member", "a-byok"), ("k-admin", "a-byok")):
        body = {"credential": planter.sealed(f"key of {name}")}
        _expect(marks, callers[name], f"/v1/mcp/server/{server}/user-credential", 200, json=body)
    form = {"key": planter.sealed("key of viewer by page")}
    _expect(marks, callers["viewer"], "/credentials/a-byok/key", 303, data=form)
    _expect(marks, callers["viewer"], f"/credentials/{planter.ids[-1]}/key", 303, data={**form})
    plant_secrets_that_are_shown_once(planter)
    return values


def plant_what_waits(planter: Planter) -> None:
    """A submission under review, a live one with a change that waits, and an import that nobody
    confirmed."""
    marks = planter.marks
    callers = planter.world.callers
    register = "/v1/mcp/server/register"
    member = callers["k-member"]
    for name in ("waits", "changes"):
        what = f"submission {name}"
        body = {
            "server_name": f"m_{name}",
            "transport": "http",
            "url": planter.url(what),
            "auth_type": "bearer_token",
            "credentials": credentials(planter, what, "auth_value"),
            **headers_by_api(planter, what),
        }
        answer = marks.read(member, member.ask("POST", register, json=body))
        assert answer.status_code == 201, answer.get_data(as_text=True)
        planter.ids.append(answer.get_json()["server_id"])
    server_id = planter.ids[-1]
    admin = callers["k-admin"]
    approved = marks.read(admin, admin.ask("PUT", f"/v1/mcp/server/{server_id}/approve"))
    assert approved.status_code == 200
    sealed = planter.sealed  # until it is approved nobody reads a change over the API either
    change = {
        "url": (
            f"{planter.upstream}/html/{sealed('change: path')}/mcp?token={sealed('change: query')}"
        ),
        "static_headers": {"X-Corp": sealed("change: header")},
        "env_vars": [
            {"name": "REGION", "value": sealed("change: global value"), "scope": "global"}
        ],
        "credentials": {"auth_value": sealed("change: credential")},
    }
    answer = marks.read(member, member.ask("PUT", f"{register}/{server_id}", json=change))
    assert answer.status_code == 200, answer.get_data(as_text=True)
    servers = {
        "drafted": {
            "url": (
                f"{planter.upstream}/{sealed('draft: path')}/mcp?api_key={sealed('draft: query')}"
            ),
            "headers": {"Authorization": f"Bearer {sealed('draft: header')}"},
        },
        "drafted_command": {
            "command": "npx",
            "args": ["-y", "tool", f"--token={sealed('draft: argument')}"],
            "env": {"API_TOKEN": sealed("draft: env")},
        },
    }
    _expect(
        marks,
        callers["admin"],
        "/servers/import",
        303,
        data={"text": json.dumps({"mcpServers": servers})},
    )


def plant_secrets_that_are_shown_once(planter: Planter) -> None:
    """New API keys and one-time passwords are in one answer each; from then on nowhere."""
    marks = planter.marks
    callers = planter.world.callers
    password = planter.sealed("password by API")
    body = {"user_id": "new1", "email": "new1@example.com", "password": password}
    _expect(marks, callers["k-admin"], "/v1/users", 201, json=body)
    typed = planter.sealed("one-time password by page")
    form = {"email": "new2@example.com", "role": "internal_user", "password": typed, "save": "yes"}
    admin = callers["admin"]
    marks.read(admin, admin.ask("POST", "/admin/users/new", data=form), allowed=[typed])
    for name, path in (
        ("k-admin", "/v1/keys"),
        ("k-member", "/v1/me/keys"),
        ("member", "/v1/me/keys"),
    ):
        wanted = (
            {"user_id": "guest"}
            if path == "/v1/keys"
            else {"object_permission": {"mcp_servers": ["id-notes"]}}
        )
        issued = callers[name].ask("POST", path, json=wanted).get_json()
        marks.known(issued["key"], NEVER, f"API key issued to {name}")


def _expect(marks: Marks, caller: Caller, path: str, status: int, **body: Any) -> None:
    answer = marks.read(caller, caller.ask("POST", path, **body))
    assert answer.status_code == status, (path, answer.get_data(as_text=True)[:2000])
