"""People and programs that write all the time, remember what was acknowledged, and what must hold
of it afterwards."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
from sqlalchemy import Engine, create_engine, text

from portal.settings import read_settings
from tests.support.faults.site import BY_KEY, Site
from tests.support.peers import TRUST

WRITERS = 4
SECRETS = 4  # the url, a credential and two headers
VARIABLES = 2


@dataclass
class Acknowledged:
    """What the portal answered with success, by the ids it was about."""

    added: set[str] = field(default_factory=set)
    with_values: set[str] = field(default_factory=set)
    to_delete: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    approved: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many writes were acknowledged."""
        return sum(map(len, (self.added, self.with_values, self.deleted, self.approved, self.keys)))

    def so_far(self) -> "Acknowledged":
        """What was acknowledged by now, while others add to it."""
        return Acknowledged(**{name: value.copy() for name, value in vars(self).items()})


class Writers:
    """`with Writers(site).busy() as acknowledged:` writes meanwhile, from several threads."""

    def __init__(self, site: Site) -> None:
        self._site, self._member = site, ""
        self._over = threading.Event()
        self._round = 0
        self.acknowledged = Acknowledged()

    def prepare(self) -> None:
        """Make the person who proposes servers, and their key."""
        for path, body in (
            (
                "/v1/users",
                {
                    "user_id": "mel",
                    "email": "mel@example.com",
                    "password": "violet-anchor-mill-7301-tram",
                },
            ),
            (
                "/v1/teams",
                {
                    "team_id": "crew",
                    "team_alias": "Crew",
                    "members_with_roles": [{"user_id": "mel"}],
                },
            ),
            ("/v1/keys", {"user_id": "mel", "team_id": "crew"}),
        ):
            answer = self._site.api("POST", path, json=body)
            assert answer.status_code == 201, answer.text
        self._member = answer.json()["key"]

    @contextlib.contextmanager
    def busy(self) -> Iterator[Acknowledged]:
        """Write until the block is left."""
        self._over.clear()
        self._round += 1
        threads = [
            threading.Thread(target=self._write, args=(f"{self._round}x{number}",))
            for number in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self.acknowledged
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _write(self, name: str) -> None:
        number = 0
        with httpx2.Client(
            base_url=self._site.address, headers=BY_KEY, timeout=60, verify=TRUST
        ) as http:
            while not self._over.is_set():
                number += 1
                self._one_of_each(http, f"s{name}x{number}")

    def _one_of_each(self, http: httpx2.Client, name: str) -> None:
        done = self.acknowledged
        if self._ask(http, "POST", "/v1/mcp/server", {**definition(name), "server_id": name}):
            done.added.add(name)
            if self._ask(
                http,
                "POST",
                f"/v1/mcp/server/{name}/user-env-vars",
                {"values": {"TOKEN": f"SECRET-{name}"}},
            ):
                done.with_values.add(name)
        by_member = {"Authorization": f"Bearer {self._member}"}
        proposed = self._ask(
            http, "POST", "/v1/mcp/server/register", definition(f"p{name}"), by_member
        )
        if proposed and self._ask(http, "PUT", f"/v1/mcp/server/{proposed['server_id']}/approve"):
            done.approved.add(proposed["server_id"])
        if (
            key := self._ask(http, "POST", "/v1/keys", {"user_id": "mel", "key_alias": name})
        ) is not None:
            done.keys.add(key["key_id"])
        if name in done.added and name.endswith("0"):
            done.to_delete.add(name)
            if self._ask(http, "DELETE", f"/v1/mcp/server/{name}") is not None:
                done.deleted.add(name)

    def _ask(
        self,
        http: httpx2.Client,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """The answer to a request that was acknowledged, else None: then nobody was told that it
        was done."""
        try:
            answer = http.request(method, path, json=body, headers=headers)
        except httpx2.HTTPError:
            self._over.wait(0.05)
            return None
        if answer.is_success:
            return answer.json() if answer.content else {}
        if answer.status_code != 503:
            self.acknowledged.faults.append(f"{method} {path}: {answer.status_code} {answer.text}")
        return None


def definition(name: str) -> dict[str, Any]:
    """A server with all that it consists of."""
    return {
        "server_name": name,
        "transport": "http",
        "url": "http://127.0.0.1:9/mcp",
        "auth_type": "bearer_token",
        "credentials": {"auth_value": "SECRET"},
        "static_headers": {"X-Key": "SECRET ${REGION}", "X-Token": "${TOKEN}"},
        "env_vars": [
            {"name": "REGION", "value": "eu", "scope": "global"},
            {"name": "TOKEN", "scope": "user"},
        ],
    }


def open_engine(url: str) -> Engine:
    """The database itself, beside the portal."""
    return create_engine(read_settings({"PORTAL_DATABASE_URL": url, **_KEYS}).database_url)


_KEYS = {"PORTAL_SECRET_KEY": "x" * 32, "PORTAL_ENCRYPTION_KEYS": "f1:" + "Zm" * 21 + "Y="}


def faults_of(engine: Engine, done: Acknowledged) -> list[str]:
    """What is lost, half there, or there without its event; nothing where all is as it was
    acknowledged."""
    with engine.connect() as connection:

        def column(sql: str) -> set[str]:
            return set(connection.scalars(text(sql)))

        def of(action: str) -> set[str]:
            return column(
                f"SELECT target_id FROM audit_events WHERE action = '{action}' AND outcome = 'done'"
            )

        faults = list(done.faults)
        if engine.dialect.name == "sqlite":
            faults += [row for row in column("PRAGMA integrity_check") if row != "ok"]
            faults += [
                f"dangling: {row}" for row in connection.execute(text("PRAGMA foreign_key_check"))
            ]
        servers = column("SELECT server_id FROM servers")
        begun = of("server created") | of("server submitted")
        ended = of("server deleted")
        halves = (
            "SELECT server_id FROM servers WHERE (SELECT count(*) FROM {} p WHERE p.server_id ="
            " servers.server_id)"
        )
        found = {
            "servers without all their secrets": column(
                f"{halves.format('server_secrets')} <> {SECRETS}"
            ),
            "servers without all their variables": column(
                f"{halves.format('server_variables')} <> {VARIABLES}"
            ),
            "servers without an event": servers - begun,
            "events without their server": begun - ended - servers,
            "servers that an event says are gone": servers & ended,
            "keys without an event": column("SELECT key_id FROM api_keys") - of("API key issued"),
            "events without their key": of("API key issued")
            - column("SELECT key_id FROM api_keys"),
            "lost: servers": done.added - servers - done.to_delete,
            "lost: values": done.with_values
            - column("SELECT server_id FROM user_variables WHERE name = 'TOKEN'")
            - done.to_delete,
            "lost: deletions": done.deleted & servers,
            "lost: approvals": done.approved
            - column("SELECT server_id FROM servers WHERE approval_status = 'active'"),
            "lost: keys": done.keys - column("SELECT key_id FROM api_keys"),
        }
        return faults + [f"{what}: {sorted(ids)}" for what, ids in found.items() if ids]
