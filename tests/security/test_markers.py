"""A marker in every secret is found in no answer, page, header, log line, error or file, for any
kind of caller.

The exemptions of `1-system.md`, 5: what a full Admin reads of a definition over the API, and the
page's *Reveal*.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select

from portal.domain.principals import OPERATOR
from portal.services.upstreams import health
from portal.store.models import AuditEvent, Base
from portal.upstream.sandbox import Sandbox
from tests.conftest import KINDS, make_settings
from tests.security.test_destinations import CHANGES
from tests.security.test_routes import address, every_route
from tests.support.peers import need_sandbox
from tests.support.security import failing
from tests.support.security.callers import Caller, World, add_callers, opened_world
from tests.support.security.foreign import (
    ENDPOINTS,
    OPENAPI,
    Foreign,
    foreign_sinks,
    plant_what_asks,
    use,
)
from tests.support.security.marks import DEFINITION, NEVER, Marks, everything_logged
from tests.support.security.planting import (
    Planter,
    plant_by_api,
    plant_by_page,
    plant_people,
    plant_what_waits,
)
from tests.support.security.sinks import sink
from tests.support.security.upstreams import parrot

NewDatabase = Callable[[str], str]
FAULTY = ("a-http", "a-refused", "a-nameless", "a-tls")


@dataclass
class Planted:
    """The catalog with its markers, and all that was logged since it began."""

    world: World
    marks: Marks
    planter: Planter
    values: dict[str, str]
    log: list[str]
    foreign: Foreign

    def check(self) -> None:
        """Nothing leaked up to here, nor reached a foreign destination."""
        self.foreign.look(self.marks)
        assert self.marks.report() == []


def _planted(database_url: str, echo: str, *, write_only: bool) -> Iterator[Planted]:
    need_sandbox(Sandbox())
    settings = make_settings(database_url, enable_stdio=True, write_only_globals=write_only)
    with (
        everything_logged() as log,
        foreign_sinks() as foreign,
        parrot(foreign.sinks["redirect"].origin) as upstream,
        opened_world(settings) as world,
    ):
        add_callers(world)
        marks = Marks()
        marks.exempts_admins = not write_only
        planter = Planter(world, marks, upstream)
        plant_by_api(planter, echo)
        plant_by_page(planter)
        values = plant_people(planter)
        plant_what_waits(planter)
        yield Planted(world, marks, planter, values, log, foreign)


@pytest.fixture(scope="module", params=KINDS)
def planted(
    request: pytest.FixtureRequest, empty_database: NewDatabase, echo_server: str
) -> Iterator[Planted]:
    yield from _planted(empty_database(request.param), echo_server, write_only=False)


@pytest.fixture(scope="module", params=KINDS)
def write_only(
    request: pytest.FixtureRequest, empty_database: NewDatabase, echo_server: str
) -> Iterator[Planted]:
    """The same under PORTAL_WRITE_ONLY_GLOBALS=true."""
    yield from _planted(empty_database(request.param), echo_server, write_only=True)


def sweep(planted: Planted, caller: Caller, *, pieces: bool = True) -> None:
    """Every GET route, about servers of each kind where it is about one; pages as pages and as
    htmx's pieces."""
    world = planted.world
    planter = planted.planter
    # How an upstream failed is told in different words only to those with admin view.
    sees_faults = caller.name in ("admin", "reader", "k-admin", "k-reader") and pieces
    of_each_kind = [
        i for i in planter.ids if sees_faults or i == "a-http_rpc" or not i.startswith(FAULTY)
    ]
    pieces = pieces and caller.name in ("admin", "member")  # the others get the same templates
    for method, rule in every_route(world):
        if method != "GET" or rule.endpoint == "static":
            continue
        is_page = not rule.rule.startswith("/v1/")
        for server_id in of_each_kind if "server_id" in rule.arguments else ["a-personal"]:
            path = address(rule, world.ids, server_id=server_id)
            planted.marks.read(caller, caller.ask("GET", path))
            if is_page and pieces and server_id in ("a-personal", "a-oauth", "a-stdio"):
                planted.marks.read(caller, caller.ask("GET", path, headers={"HX-Request": "true"}))


def test_planting_shows_nothing(planted: Planted) -> None:
    assert len(planted.marks.of_kind(DEFINITION)) > 40
    assert len(planted.marks.of_kind(NEVER)) > 40
    planted.check()


@pytest.mark.parametrize(
    "name",
    [
        "nobody",
        "ended",
        "viewer",
        "member",
        "outsider",
        "reader",
        "admin",
        "k-viewer",
        "k-member",
        "k-outsider",
        "k-reader",
        "k-admin",
        "k-narrow",
        "k-restr",
        "k-restr-a",
        "k-team",
        "k-expired",
        "k-revoked",
        "k-gone",
    ],
)
def test_no_get_shows_a_secret(planted: Planted, name: str) -> None:
    sweep(planted, planted.world.callers[name])
    planted.check()


def test_what_waits_is_there_to_be_found(planted: Planted) -> None:
    """Or the sweep above would look at pages without anything that waits."""
    callers = planted.world.callers
    queue = planted.marks.read(
        callers["k-admin"], callers["k-admin"].ask("GET", "/v1/mcp/server/submissions")
    )
    waits = {item["server_name"]: item["change_waits"] for item in queue.get_json()["items"]}
    assert waits.items() >= {"m_waits": False, "m_changes": True}.items()
    draft = planted.marks.read(
        callers["admin"], callers["admin"].ask("GET", "/servers/import/preview")
    )
    assert "drafted" in draft.get_data(as_text=True)
    planted.check()


def test_pages_that_ask_an_upstream_show_nothing(planted: Planted) -> None:
    """Upstreams that fail, and give back all that they were sent while they do."""
    for name, about in (
        ("admin", planted.planter.ids),
        ("member", ["a-http_rpc", "a-http_500", "a-tls", "a-byok"]),
    ):
        caller = planted.world.callers[name]
        for server_id in about:
            for path in (
                "/servers/{}/tools?now=1",
                "/credentials/{}?test=1",
                "/playground?server={}",
            ):
                asked = caller.ask("GET", path.format(server_id), headers={"HX-Request": "true"})
                planted.marks.read(caller, asked)
            for asked_for in ("probe", "oauth-check"):
                planted.marks.read(
                    caller, caller.ask("POST", f"/servers/{server_id}/{asked_for}", data={})
                )
    planted.check()


def test_failing_tool_calls_show_nothing(planted: Planted) -> None:
    for name in ("k-admin", "k-member", "k-viewer", "k-team", "k-restr"):
        caller = planted.world.callers[name]
        for server_id in planted.planter.ids:
            if server_id == "a-echo":
                continue
            body = {"server_id": server_id, "name": "add", "arguments": {}}
            answer = planted.marks.read(caller, caller.ask("POST", "/v1/mcp/tools/call", json=body))
            assert answer.status_code >= 400, (server_id, answer.get_data(as_text=True))
            assert answer.status_code != 500, server_id
    planted.check()


def test_answers_that_refuse_give_nothing_back_over_the_api(planted: Planted) -> None:
    for caller, method, path, status, options in failing.over_the_api(planted.planter):
        answer = planted.marks.read(caller, caller.ask(method, path, **options))
        assert answer.status_code == status, (method, path, answer.get_data(as_text=True)[:500])
    planted.check()


def test_pages_that_refuse_give_nothing_back(planted: Planted) -> None:
    for caller, path, status, form in failing.through_pages(planted.planter):
        for headers in ({}, {"HX-Request": "true"}):
            answer = planted.marks.read(
                caller, caller.ask("POST", path, data=form, headers=headers)
            )
            assert answer.status_code == status, (path, form, answer.get_data(as_text=True)[-3000:])
    planted.check()


def test_a_tool_shows_what_arrived_to_the_one_who_called_and_to_nobody_else(
    planted: Planted,
) -> None:
    marks = planted.marks
    callers = planted.world.callers
    shared = {m.text for m in marks.planted if m.what.startswith("api echo")}
    for name, value in planted.values.items():
        body = {"server_id": "a-echo", "name": "show_headers", "arguments": {}}
        answer = callers[name].ask("POST", "/v1/mcp/tools/call", json=body)
        assert answer.status_code == 200
        assert value in answer.get_data(as_text=True)
        marks.read(callers[name], answer, allowed={*shared, value})
    for name, value in (
        ("member", planted.values["k-member"]),
        ("viewer", planted.values["k-viewer"]),
    ):
        form = {"server": "a-echo", "tool": "show_headers"}
        answer = callers[name].ask("POST", "/playground/call", data=form)
        assert value in answer.get_data(as_text=True)
        marks.read(callers[name], answer, allowed={*shared, value})
    for name in ("reader", "outsider", "k-outsider", "k-team"):
        path = "/v1/mcp/tools/call"
        marks.read(
            callers[name],
            callers[name].ask("POST", path, json={"server_id": "a-echo", "name": "show_headers"}),
        )
    for name in ("admin", "reader", "member", "k-team"):
        marks.read(
            callers[name], callers[name].ask("GET", "/playground?server=a-echo&tool=show_headers")
        )
    planted.check()


def test_revealing_shows_an_admin_the_definition_and_puts_it_on_record(planted: Planted) -> None:
    marks = planted.marks
    admin = planted.world.callers["admin"]
    for server_id in planted.planter.ids:
        for name in ("member", "outsider", "reader", "nobody"):
            caller = planted.world.callers[name]
            marks.read(caller, caller.ask("POST", f"/servers/{server_id}/reveal"))
        answer = admin.ask("POST", f"/servers/{server_id}/reveal")
        assert answer.status_code == 200
        marks.read(admin, answer, allowed=marks.of_kind(DEFINITION))
        assert marks.found_in(answer.get_data()) != []
        assert "no-store" in answer.headers["Cache-Control"]
    query = select(func.count()).where(
        AuditEvent.action == "configuration revealed", AuditEvent.actor_id == "ada"
    )
    with planted.world.database.session() as session:
        assert session.scalar(query) == len(planted.planter.ids)
    planted.check()


def test_the_exemption_is_no_wider_than_the_specification_has_it(planted: Planted) -> None:
    """A full Admin's key reads url, spec_path, header, env, args and global values, and of the rest
    nothing."""
    caller = planted.world.callers["k-admin"]
    listed = caller.ask("GET", "/v1/mcp/server")
    seen = planted.marks.found_in(listed.get_data())
    assert {mark.kind for mark in seen} == {DEFINITION}
    told = {mark.what.split(": ")[-1] for mark in seen}
    assert told == {"path", "query", "url", "spec_path", "header", "global value", "args", "env"}
    assert all(server["credentials"] is None for server in listed.get_json())


def test_changes_and_the_worker_show_nothing(planted: Planted) -> None:
    marks = planted.marks
    callers = planted.world.callers
    planter = planted.planter
    change = {
        "server_id": "a-http_500",
        "credentials": {"auth_value": planter.sealed("changed auth_value")},
    }
    assert (
        marks.read(
            callers["k-admin"], callers["k-admin"].ask("PUT", "/v1/mcp/server", json=change)
        ).status_code
        == 202
    )
    moved = {
        "server_id": "a-http_rpc",
        "url": planter.url("moved", "html"),
        "keep_credentials": True,
    }
    assert (
        marks.read(
            callers["k-admin"], callers["k-admin"].ask("PUT", "/v1/mcp/server", json=moved)
        ).status_code
        == 202
    )
    with planted.world.database.session(writes=True) as session:
        health.probe_due(session, OPERATOR)
        session.commit()
    for name in ("admin", "reader", "member"):
        for server_id in ("a-http_500", "a-http_rpc"):
            for part in ("", "/health", "/configuration", "/access"):
                marks.read(callers[name], callers[name].ask("GET", f"/servers/{server_id}{part}"))
    planted.check()


def test_no_change_leads_a_stored_secret_to_a_foreign_destination(planted: Planted) -> None:
    """Every change that names one, asked for on every planted server; and whatever became of it is
    used."""
    marks = planted.marks
    planter = planted.planter
    admin = planted.world.callers["k-admin"]
    refused = set()
    for server_id in planter.ids:
        for what, change in CHANGES.items():
            body = {"server_id": server_id, **planted.foreign.fill(change)}
            answer = marks.read(admin, admin.ask("PUT", "/v1/mcp/server", json=body))
            assert answer.status_code in (202, 400, 409, 422), answer.get_data(as_text=True)
            refused |= {what} if answer.status_code == 409 else set()
        use(planter, server_id, "k-admin", "k-member")
    planted.check()
    assert refused >= {"url", "spec_path", "token_url", "exchange", "to a command", "args"}


def test_no_word_of_an_upstream_leads_a_stored_secret_to_a_foreign_destination(
    planted: Planted,
) -> None:
    """What the sign-in provider and a document name, after they named a place at home."""
    planter = planted.planter
    admin = planted.world.callers["k-admin"]
    sinks = planted.foreign.sinks
    told = "/v1/mcp/server/a-people/oauth-user-credential"

    def look_again(path: str) -> None:
        """Another path at the same origin moves nothing, and has discovery asked anew."""
        for server_id in ("a-machine", "a-people"):
            body = {"server_id": server_id, "url": f"{home.origin}/{path}"}
            assert admin.ask("PUT", "/v1/mcp/server", json=body).status_code == 202
            use(planter, server_id, "k-admin", "k-member", "k-viewer")
        assert any(f"/{path} ".encode() in heard for heard in home.heard), (
            "it was asked where to go"
        )

    with sink() as home:
        plant_what_asks(planter, home)
        use(planter, "a-machine", "k-admin")
        assert planted.world.callers["k-viewer"].ask("DELETE", told).status_code == 200
        marks = {mark.what: mark.text for mark in planted.marks.planted}
        for what in ("asks: client_secret", "asks: refresh_token of k-viewer"):
            assert home.holds(marks[what]), "at home they arrive"
        as_it_was = dict(home.metadata)
        for endpoint, name in ENDPOINTS.items():
            home.metadata = {**as_it_was, endpoint: f"{sinks[name].origin}/{endpoint}"}
            look_again(endpoint)
        home.metadata = {
            **as_it_was,
            "revocation_endpoint": f"{sinks['revocation endpoint'].origin}/revoke",
        }
        look_again("revoking")
        assert planted.world.callers["k-member"].ask("DELETE", told).status_code == 200
        home.metadata, home.issuer = as_it_was, sinks["issuer"].origin
        look_again("issuer")
        home.says["/openapi.json"] = {
            **OPENAPI,
            "servers": [{"url": sinks["API of a document"].origin}],
        }
        use(planter, "a-document", "k-admin", "k-member")
        planted.check()


def test_a_database_that_fails_gives_nothing_away(planted: Planted) -> None:
    """Its errors quote the statement with what was to be written."""
    marks = planted.marks
    callers = planted.world.callers
    engine = planted.world.database.engine
    tables = ("user_variables", "users", "server_secrets")
    with engine.begin() as connection:
        for table in tables:
            connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {table}_gone")
    path = "/v1/mcp/server"
    body = {"url": f"http://127.0.0.1/{planted.planter.sealed('url at a fault')}"}
    value = {"values": {"CORP_TOKEN": planted.planter.sealed("value at a fault")}}
    form = {"email": "mel@example.com", "password": planted.planter.sealed("password at a fault")}
    answers = [
        marks.read(
            callers["k-team"],
            callers["k-team"].ask("POST", f"{path}/a-echo/user-env-vars", json=value),
        ),
        marks.read(
            callers["k-admin"],
            callers["k-admin"].ask("POST", path, json={"server_name": "fault", **body}),
        ),
        marks.read(
            callers["member"],
            callers["member"].ask("POST", "/credentials/a-echo", data=value["values"]),
        ),
        marks.read(callers["nobody"], callers["nobody"].ask("POST", "/login", data=form)),
    ]
    with engine.begin() as connection:
        for table in tables:
            connection.exec_driver_sql(f"ALTER TABLE {table}_gone RENAME TO {table}")
    assert [answer.status_code for answer in answers] == [503] * 4
    planted.check()


def test_the_log_holds_nothing_even_at_its_most_talkative(planted: Planted) -> None:
    assert len(planted.log) > 1_000
    if planted.marks.found_in("\n".join(planted.log).encode()):
        for line in planted.log:
            planted.marks.look(line.encode(), f"log: {line[:60]}")
    planted.check()


def test_the_database_holds_nothing_plain(planted: Planted) -> None:
    """In no row, and on SQLite neither in the file nor in its journal, where also rows stand that
    are gone."""
    engine = planted.world.database.engine
    if engine.dialect.name == "sqlite":
        folder = Path(str(engine.url.database)).parent
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        assert {file.suffix for file in files} >= {".db", ".db-wal"}
        for file in files:
            planted.marks.look(file.read_bytes(), f"file {file.suffix}")
    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            for row in connection.execute(select(table)):
                planted.marks.look(repr(row).encode(), f"row of {table.name}: {row[0]}")
    planted.check()


@pytest.mark.parametrize("name", ["admin", "k-admin"])
def test_with_write_only_globals_an_admin_reads_nothing_either(
    write_only: Planted, name: str
) -> None:
    sweep(write_only, write_only.world.callers[name], pieces=False)
    write_only.check()


def test_with_write_only_globals_nothing_can_be_revealed(write_only: Planted) -> None:
    admin = write_only.world.callers["admin"]
    for server_id in write_only.planter.ids:
        write_only.marks.read(admin, admin.ask("POST", f"/servers/{server_id}/reveal"))
    write_only.check()


def test_with_write_only_globals_an_admin_is_told_what_is_set(write_only: Planted) -> None:
    server = write_only.world.callers["k-admin"].ask("GET", "/v1/mcp/server/a-personal").get_json()
    region = next(v for v in server["env_vars"] if v["name"] == "REGION")
    assert (region["value"], region["is_set"]) == ("", True)
    assert server["url"] == ""
