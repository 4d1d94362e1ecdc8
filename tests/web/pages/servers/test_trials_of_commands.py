"""A command that was never saved is confirmed and on record before a test starts it; without a
sandbox none starts."""

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select

from portal.domain.errors import UpstreamFailure
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.services.servers.destinations import copy_of
from portal.services.upstreams import connection_test
from portal.services.upstreams.resolve import build, config_of
from portal.store.database import Database
from portal.store.models import AuditEvent, Server
from tests.conftest import KEYS, NOTES, Client, Portal, Write
from tests.support.factories import PASSWORD
from tests.support.html import filled, parse
from tests.support.server_forms import NEW, form_of

As = Callable[[str | None], Client]
HTMX = {"HX-Request": "true"}
STARTED = "command started for a test"
CALLS = (
    "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1]))).sendall(b'x');"
    " sys.exit(1)"
)


class Bell:
    """A port that a command rings at when it is started; notes what the audit log had at that
    moment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.rings: list[list[dict[str, Any]]] = []
        self._noted = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            seen = self.on_record()
            with self._noted:
                self.rings.append(seen)
                self._noted.notify_all()
            caller.close()

    def heard(self) -> list[list[dict[str, Any]]]:
        """The rings, as soon as there is one: the command may have ended before it is noted."""
        with self._noted:
            assert self._noted.wait_for(lambda: self.rings, timeout=30), "nothing rang"
            return self.rings

    def on_record(self) -> list[dict[str, Any]]:
        """The details of the events about tests of commands."""
        with self._database.session() as session:
            events = (
                select(AuditEvent.details)
                .where(AuditEvent.action == STARTED)
                .order_by(AuditEvent.at)
            )
            return [dict(details) for details in session.scalars(events)]

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def bell(database: Database) -> Iterator[Bell]:
    bell = Bell(database)
    yield bell
    bell.close()


def typed(bell: Bell, **more: Any) -> dict[str, Any]:
    return {
        "server_name": "cmd",
        "transport": "stdio",
        "command": "python3",
        "args": f"-c\n{CALLS}\n{bell.port}",
        **more,
    }


def mark_in(answer: Any) -> str:
    button = parse(answer).find("button", attrs={"name": "confirmed"})
    assert button, "the page asks"
    return str(button["value"])


def test_a_command_that_was_never_saved_is_confirmed_and_on_record_first(
    stdio_portal: tuple[Client, As], bell: Bell
) -> None:
    ada, _ = stdio_portal
    form = form_of(ada.get(NEW))

    def tried(**more: Any) -> Any:
        return ada.post("/servers/test", data=filled(form, **typed(bell, **more)), headers=HTMX)

    asked = tried()
    text = parse(asked).text
    assert "Run this command on this host?" in text
    assert f"python3 -c '{CALLS.split(chr(39))[0]}" in text
    assert "nobody (uid 65534)" in text or "(uid " in text
    mark = mark_in(asked)
    assert bell.rings == bell.on_record() == []
    for changed in (
        {"args": f"-c\n{CALLS}\n{bell.port}\n1"},
        {"command": "python"},
        {"confirmed": mark[:-8] + "AAAAAAA="},
        {"env-0-name": "TOKEN", "env-0-value": "x"},
        {"confirmed": "no mark"},
        {"confirmed": ""},
    ):
        assert mark_in(tried(**{"confirmed": mark, **changed})), changed
    assert bell.rings == bell.on_record() == []
    assert "exited before it responded" in parse(tried(confirmed=mark)).text
    [seen] = bell.heard()
    assert seen == bell.on_record()
    assert (seen[0]["command"], seen[0]["arguments"], seen[0]["variables"]) == ("python3", 3, [])
    assert "uid" in seen[0]["runs_as"]
    page = parse(ada.post("/servers/test", data=filled(form, **typed(bell))))  # without JavaScript
    assert "Nothing was started" in page.text
    assert not page.find("button", attrs={"name": "confirmed"})


def test_the_confirmation_of_one_person_is_not_another_s(
    stdio_portal: tuple[Client, As], bell: Bell, database: Database
) -> None:
    ada, _ = stdio_portal
    mark = mark_in(
        ada.post("/servers/test", data=filled(form_of(ada.get(NEW)), **typed(bell)), headers=HTMX)
    )
    with database.session() as session:
        vault = runtime_of(session).vault
        assert (
            vault.open(base64.urlsafe_b64decode(mark), bindings.of_command_test("somebody-else"))
            is None
        )
    assert connection_test.Start("", (), "", mark).mark not in repr(
        connection_test.Start("", (), "", mark)
    )


def test_a_saved_command_is_only_put_on_record(stdio_portal: tuple[Client, As], bell: Bell) -> None:
    ada, client = stdio_portal
    body = {"server_id": "id-c", "server_name": "cmd", "transport": "stdio", "command": "python3",
            "args": ["-c", CALLS, str(bell.port)], "env": {"TOKEN": "SECRET-stored"}}  # fmt: skip
    assert client("ada").post("/v1/mcp/server", body).status_code == 201
    form = form_of(ada.get("/servers/id-c/edit"))

    def tried(**more: Any) -> Any:
        return ada.post("/servers/test", data=filled(form, **more), headers=HTMX)

    assert "exited before it responded" in parse(tried()).text
    assert [len(seen) for seen in bell.heard()] == [1]
    for changed, said in (
        ({"args": "-c\nprint(1)"}, "env.TOKEN (from the command python3"),
        ({"command": "python"}, "from the command python3 to the command python"),
        ({"env-0-value__mode": "replace", "env-0-value": "another"}, "with its 3 saved arguments"),
        (
            {"args": "-c\nprint(1)", "env-0-value__mode": "replace", "env-0-value": "x"},
            "python3 -c 'print(1)'",
        ),
    ):
        answer = tried(**changed)
        assert said in parse(answer).text, changed
        assert "SECRET" not in answer.get_data(as_text=True)
    assert len(bell.heard()) == 1
    assert client("ada").put("/v1/mcp/server/id-c/reject", {}).status_code == 200
    assert "only for active servers" in parse(tried()).text
    for answer in (
        client("ada").post(
            "/v1/mcp/tools/call", {"server_id": "id-c", "name": "x", "arguments": {}}
        ),
        client("ada").get("/v1/mcp/tools?server_id=id-c"),
        client("ada").get("/v1/mcp/server/health?server_ids=id-c"),
    ):
        assert answer.status_code < 500
    assert len(bell.rings) == 1, "the command of a rejected server is not started"


@pytest.mark.parametrize("how", ["pending_review", "rejected", "never saved"])
def test_a_command_that_is_not_saved_and_active_makes_no_target(write: Write, how: str) -> None:
    """Whatever leads there: this is the last guard, behind those of calls, lists and looks."""
    with write() as session:
        row = session.get_one(Server, NOTES)
        row.transport, row.command, row.args = "stdio", "python3", []
        assert build(config_of(session, row), {}).command == "python3"
        if how == "never saved":
            row = copy_of(row)
        else:
            row.approval_status = how
        with pytest.raises(
            UpstreamFailure, match="only after the server is saved and active"
        ) as refused:
            build(config_of(session, row), {})
        assert refused.value.reason == "disabled"


def test_only_who_may_save_it_may_test_it(signed_in: Callable[[str], Client], bell: Bell) -> None:
    for name in ("vera", "mel"):
        person = signed_in(name).with_csrf()
        assert person.post("/servers/test", data=typed(bell)).status_code in (403, 404)
    assert bell.rings == bell.on_record() == []


NO_SANDBOX = {"enable_stdio": True, "stdio_user": "no-such-user"}


@pytest.fixture
def without_sandbox(portal_with: Callable[..., Portal]) -> Client:
    """Ada at a portal in which stdio is on, and no sandbox can be made for want of a user."""
    app = portal_with(**NO_SANDBOX).app
    return Client(app.test_client(), {"X-API-Key": KEYS["ada"]})


@pytest.fixture
def without_sandbox_page(portal_with: Callable[..., Portal]) -> Client:
    """Ada signed in there."""
    browser = portal_with(**NO_SANDBOX).app.test_client()
    token = parse(browser.get("/login")).select_one("input[name=csrf_token]")
    assert token
    browser.post(
        "/login",
        data={"email": "ada@example.com", "password": PASSWORD, "csrf_token": token["value"]},
    )
    return Client(browser, {})


def test_without_a_sandbox_commands_are_refused_with_the_reason(
    without_sandbox: Client, stdio_portal: tuple[Client, As], bell: Bell
) -> None:
    _, sandboxed = stdio_portal
    body = {"server_id": "id-c", "server_name": "cmd", "transport": "stdio", "command": "python3",
            "args": ["-c", CALLS, str(bell.port)]}  # fmt: skip
    for answer in (
        without_sandbox.post("/v1/mcp/server", body),
        *(
            []
            if sandboxed("ada").post("/v1/mcp/server", body).status_code != 201
            else [
                without_sandbox.put(
                    "/v1/mcp/server", {"server_id": "id-c", "description": "still a command"}
                )
            ]
        ),
    ):
        detail = answer.get_json()["detail"]
        assert (answer.status_code, detail["error"], detail["field"]) == (
            400,
            "stdio_not_allowed",
            "transport",
        )
        assert "PORTAL_STDIO_USER" in detail["message"]
    [health] = without_sandbox.get("/v1/mcp/server/health?server_ids=id-c").get_json()
    assert health["status"] == "unknown", health
    called = without_sandbox.post(
        "/v1/mcp/tools/call", {"server_id": "id-c", "name": "x", "arguments": {}}
    )
    assert (called.status_code, "PORTAL_STDIO_USER" in called.get_data(as_text=True)) == (502, True)
    assert bell.rings == []


def test_the_form_says_why_no_command_can_run(without_sandbox_page: Client, bell: Bell) -> None:
    page = without_sandbox_page.get(NEW)
    assert "Commands cannot run on this host" in parse(page).text
    form = form_of(page)
    said = parse(
        without_sandbox_page.post("/servers/test", data=filled(form, **typed(bell)), headers=HTMX)
    ).text
    assert "PORTAL_STDIO_USER" in said
    assert "Run and test" not in said
    assert bell.rings == bell.on_record() == []
