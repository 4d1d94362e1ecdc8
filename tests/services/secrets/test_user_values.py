"""Fifty writers on the values that one person has of one server, through two processes: none is
lost."""

import base64
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import httpx2
import pytest

from portal.app import open_database
from portal.services.secrets.user_values import opened_values
from portal.settings import read_settings
from portal.store import schema
from portal.store.database import Database
from portal.store.models import Server, UserVariable
from tests.support.peers import bare_environment, free_port, start_process

WRITERS = 50
NAMES = [f"VALUE_{number:02}" for number in range(WRITERS)]
PATH = "/v1/mcp/server/wide/user-env-vars"
_TRIES = 10
KEY = "sk-fifty-writers-bootstrap-0001"
BY_KEY = {"Authorization": f"Bearer {KEY}"}
WIDE = {
    "server_id": "wide",
    "server_name": "wide",
    "transport": "http",
    "url": "http://127.0.0.1:9/mcp",
    "static_headers": {"X-All": "".join(f"${{{name}}}" for name in NAMES)},
    "env_vars": [{"name": name, "scope": "user"} for name in NAMES],
}


@dataclass(frozen=True)
class Two:
    """Two `portal serve` on one database, and that database."""

    clients: list[httpx2.Client]
    database: Database

    def save(self, values: list[dict[str, str]]) -> None:
        """Each of `values` sent by a writer of its own, all at once, by turns to the two.

        SQLite lets its writers wait for the lock without a queue, so that on a busy machine one of
        them may be told to come again (503); it does, as any client would.
        """

        def sent(number: int) -> int:
            for _ in range(_TRIES):
                answer = self.clients[number % 2].post(PATH, json={"values": values[number]})
                if answer.status_code != 503:
                    break
            return answer.status_code

        with ThreadPoolExecutor(len(values)) as writers:
            assert list(writers.map(sent, range(len(values)))) == [200] * len(values)

    def stored(self) -> dict[str, str]:
        """What is stored, as an upstream would get it."""
        with self.database.session() as session:
            row = session.get(Server, "wide")
            assert row is not None
            return opened_values(
                session, row, session.query(UserVariable.user_id).distinct().scalar()
            )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    on_files = request.param == "sqlite"
    file = tmp_path_factory.mktemp("writers") / "portal.db"
    settings = {
        "PORTAL_DATABASE_URL": f"sqlite:///{file}"
        if on_files
        else request.getfixturevalue("own_postgres_url"),
        "PORTAL_SECRET_KEY": "x" * 32,
        "PORTAL_ENCRYPTION_KEYS": "w1:" + base64.b64encode(b"w" * 32).decode(),
        "PORTAL_PUBLIC_URL": "http://127.0.0.1:8000",
        "PORTAL_BOOTSTRAP_API_KEY": KEY,
        "PORTAL_ALLOW_PRIVATE_UPSTREAMS": "true",
    }
    database = open_database(read_settings(settings))
    schema.upgrade(database.engine)
    clients = []
    with ExitStack() as stack:
        stack.callback(database.engine.dispose)
        for _ in range(2):
            port = free_port()
            argv = [
                sys.executable,
                "-m",
                "portal.cli",
                "serve",
                "--port",
                str(port),
                "--workers",
                "1",
            ]
            stack.enter_context(start_process(argv, bare_environment(**settings), port, seconds=60))
            client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=BY_KEY, timeout=60)
            clients.append(stack.enter_context(client))
        made = clients[0].post("/v1/mcp/server", json=WIDE)
        assert made.status_code == 201, made.text
        yield Two(clients, database)


def test_fifty_values_saved_at_once_are_all_kept(two: Two) -> None:
    for said in ("first", "second"):
        two.save([{name: f"{said} of {name}"} for name in NAMES])
        assert two.stored() == {name: f"{said} of {name}" for name in NAMES}


def test_of_fifty_on_one_name_one_stays_and_the_other_names_are_untouched(two: Two) -> None:
    two.save([dict.fromkeys(NAMES, "kept")])
    for said in ("first", "second"):
        values = [f"{said} of writer {number}" for number in range(WRITERS)]
        two.save([{NAMES[0]: value} for value in values])
        stored = two.stored()
        assert stored.pop(NAMES[0]) in values
        assert stored == dict.fromkeys(NAMES[1:], "kept")
