"""A database with any number of servers, the same in every run, written in bulk."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from sqlalchemy import Connection, Table, insert, update

from portal.app import open_database
from portal.domain.principals import Role
from portal.services.access import sessions
from portal.settings import Settings, parse_key_ring
from portal.store import schema
from portal.store.models import (
    AccessGroup,
    AccessGroupServer,
    ApiKey,
    Base,
    Grant,
    Server,
    ServerSecret,
    ServerVariable,
    Team,
    TeamMember,
    ToolSight,
    User,
    UserCredential,
    UserVariable,
)
from portal.store.vault import Place, Vault

ADMIN = "bench-admin"
MEMBER = "bench-member"
NARROW = "bench-narrow"
PASSWORD = "bench-password-of-all"
SIGN_INS = 60
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
GROUPS = 20
_NARROW_HAS = 20
_TEAMS = {MEMBER: "team-0", NARROW: "team-1"}
_GRANTED = {MEMBER: "most", NARROW: "few"}
_LATER = timedelta(minutes=25)  # longer than a benchmark, so that the worker checks no samples
KEY_RING = "bench:" + base64.b64encode(hashlib.sha256(b"bench").digest()).decode()


@dataclass(frozen=True)
class Seeded:
    """A filled database, the environment to open it, and the credentials of its users."""

    servers: int
    environment: dict[str, str]
    last_page: str

    @staticmethod
    def cookie(user_id: str) -> str:
        """Return the session cookie of a user."""
        return hashlib.sha256(f"cookie of {user_id}".encode()).hexdigest()

    @staticmethod
    def email(number: int) -> str:
        """Return the email of one of `SIGN_INS` users who only have the password."""
        return f"signs-in-{number}@bench.example"

    @staticmethod
    def key(user_id: str) -> str:
        """Return the API key of a user."""
        return "sk-" + hashlib.sha256(f"key of {user_id}".encode()).hexdigest()

    @staticmethod
    def hash_of(key: str) -> str:
        """Return the stored hash of an API key."""
        return hashlib.sha256(key.encode()).hexdigest()


def seed(folder: Path, servers: int, page_size: int) -> Seeded:
    """Create servers in a new SQLite file, an Admin, and two Members whose teams have a group.

    One group has three of five servers, the other 20, spread over all. Server number i is the same
    for any total, so that first pages are alike and only the total differs.
    """
    environment = {
        "PORTAL_DATABASE_URL": f"sqlite:///{folder / f'{servers}.db'}",
        "PORTAL_SECRET_KEY": hashlib.sha256(b"bench secret").hexdigest(),
        "PORTAL_ENCRYPTION_KEYS": KEY_RING,
    }
    settings = Settings(
        database_url=environment["PORTAL_DATABASE_URL"],
        secret_key=environment["PORTAL_SECRET_KEY"],
        encryption_keys=KEY_RING,
        cheap_hashing=True,
        _env_file=None,
    )
    database = open_database(settings)
    schema.upgrade(database.engine)
    with (
        database.engine.connect().execution_options(portal_writes=True) as connection,
        connection.begin(),
    ):
        _people(connection)
        put_servers(connection, servers)
        _values(connection, servers)
    with database.session(writes=True) as session:
        for user_id in (ADMIN, MEMBER, NARROW):
            data = {"_user_id": user_id, "_fresh": True}
            sessions.save_session(session, Seeded.cookie(user_id), data, user_id, "bench")
        session.commit()
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.engine.dispose()
    before_last = server_name(servers - page_size - 1)
    return Seeded(servers, environment, f"{before_last}~{before_last}")


def _people(connection: Connection) -> None:
    roles = {ADMIN: Role.ADMIN, MEMBER: Role.MEMBER, NARROW: Role.MEMBER}
    put(
        connection,
        User,
        [{"user_id": u, "email": f"{u}@bench.example", "role": r.value} for u, r in roles.items()],
    )
    hashed = password_hash()
    signing_in = [
        {
            "user_id": f"signs-in-{n}",
            "email": Seeded.email(n),
            "role": Role.MEMBER.value,
            "password_hash": hashed,
        }
        for n in range(SIGN_INS)
    ]
    put(connection, User, signing_in)
    put(connection, Team, [{"team_id": f"team-{n}", "team_alias": f"Team {n}"} for n in range(10)])
    keys = [
        {
            "key_hash": Seeded.hash_of(Seeded.key(u)),
            "key_prefix": "sk-bench",
            "user_id": u,
            "team_id": _TEAMS.get(u),
        }
        for u in roles
    ]
    put(connection, ApiKey, keys)
    put(connection, TeamMember, [{"team_id": team, "user_id": u} for u, team in _TEAMS.items()])
    put_groups(connection)
    grants = [
        {
            "holder_kind": "team",
            "holder_id": _TEAMS[u],
            "kind": "access_group",
            "access_group_id": group,
        }
        for u, group in _GRANTED.items()
    ]
    put(connection, Grant, grants)


def password_hash() -> str:
    """Return the hash of `PASSWORD`, as slow to verify as the portal's; shared by all users."""
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(PASSWORD)


def put_groups(connection: Connection) -> None:
    """Insert `GROUPS` groups with every GROUPS-th server, and the two groups of Members."""
    groups = [{"access_group_id": f"group-{n}", "name": f"group {n:02}"} for n in range(GROUPS)]
    granted = [{"access_group_id": group, "name": group} for group in _GRANTED.values()]
    put(connection, AccessGroup, groups + granted)


def put_servers(connection: Connection, servers: int) -> None:
    """Insert the servers with their parts, in the groups of `put_groups`."""
    at = datetime.now(UTC)
    put(
        connection,
        Server,
        (_server(number) | {"probe_due_at": at + _LATER} for number in range(servers)),
    )
    put(
        connection,
        ToolSight,
        ({"server_id": server_name(n), "compared_at": at} for n in range(servers)),
    )
    vault = Vault(parse_key_ring(KEY_RING))
    put(
        connection,
        ServerSecret,
        (row for number in range(servers) for row in _secrets(vault, number)),
    )
    variables = [
        {
            "server_id": server_name(n),
            "position": 0,
            "name": "TOKEN",
            "scope": "user",
            "description": "From your profile.",
            "is_required": True,
        }
        for n in range(servers)
        if _needs_value(n)
    ]
    put(connection, ServerVariable, variables)
    members = [
        {"access_group_id": f"group-{n % GROUPS}", "server_id": server_name(n)}
        for n in range(servers)
    ]
    most = [
        {"access_group_id": _GRANTED[MEMBER], "server_id": server_name(n)}
        for n in range(servers)
        if n % 5 < 3
    ]
    # Spread out, but with the same last digits for any total, because these decide what a server
    # requires.
    spread = [i * (servers // _NARROW_HAS) // 10 * 10 + i % 10 for i in range(_NARROW_HAS)]
    few = [{"access_group_id": _GRANTED[NARROW], "server_id": server_name(n)} for n in spread]
    put(connection, AccessGroupServer, members + most + few)


def _values(connection: Connection, servers: int) -> None:
    """Store half of the required values for all three users."""
    sealed = Vault(parse_key_ring(KEY_RING)).seal("value", Place("bench", "", "", ""))
    owners = [(user_id, n) for user_id in (ADMIN, MEMBER, NARROW) for n in range(servers) if n % 2]
    values = [
        {"user_id": u, "server_id": server_name(n), "name": "TOKEN", "sealed": sealed}
        for u, n in owners
    ]
    put(
        connection,
        UserVariable,
        [v for v, (_, n) in zip(values, owners, strict=True) if _needs_value(n)],
    )
    keys = [
        {"user_id": u, "server_id": server_name(n), "kind": "byok", "sealed": sealed}
        for u, n in owners
    ]
    put(
        connection,
        UserCredential,
        [k for k, (_, n) in zip(keys, owners, strict=True) if _is_byok(n)],
    )


def server_name(number: int) -> str:
    """Return the id and name of a server."""
    return f"server_{number:05}"


def _needs_value(number: int) -> bool:
    return number % 10 < 3


def _is_byok(number: int) -> bool:
    return number % 10 == 5


def _server(number: int) -> dict[str, Any]:
    name = server_name(number)
    healthy = number % 4 != 0
    return {
        "server_id": name,
        "incarnation": f"i-{number}",
        "sort_key": name,
        "server_name": name,
        "alias": f"s{number:05}",
        "description": (
            f"Sample {number:05}, with a line of text such as people write about what a server can"
            " do."
        ),
        "transport": "sse" if number % 7 == 0 else "http",
        "auth_type": "bearer_token" if number % 3 == 0 or _is_byok(number) else "none",
        "is_byok": _is_byok(number),
        "address": f"https://s{number:05}.example",
        "mcp_info": {"server_name": name},
        "created_at": _BEGIN + timedelta(minutes=number),
        "updated_at": _BEGIN + timedelta(minutes=number),
        "health_status": "healthy" if healthy else "unhealthy",
        "health_reason": "ok" if healthy else "dns",
        "health_checked_at": _BEGIN,
    }


def _secrets(vault: Vault, number: int) -> Iterator[dict[str, Any]]:
    parts = {("url", ""): f"https://s{number:05}.example/mcp"}
    if _needs_value(number):
        parts["static_headers", "X-Token"] = "${TOKEN}"
    for (field, name), text in parts.items():
        place = Place("definition", server_name(number), f"i-{number}", f"{field}:{name}")
        yield {
            "server_id": server_name(number),
            "field": field,
            "name": name,
            "sealed": vault.seal(text, place),
            "hint": f"https://s{number:05}.example" if field == "url" else None,
            "refers_to": ["TOKEN"] if field == "static_headers" else [],
        }


def seal_url(connection: Connection, number: int, url: str) -> None:
    """Set the URL of server `number`."""
    place = Place("definition", server_name(number), f"i-{number}", "url:")
    sealed = Vault(parse_key_ring(KEY_RING)).seal(url, place)
    mine = (ServerSecret.server_id == server_name(number), ServerSecret.field == "url")
    connection.execute(
        update(ServerSecret).where(*mine).values(sealed=sealed, hint=url.rpartition("/")[0])
    )


def put(connection: Connection, model: type[Base], rows: Any) -> None:
    """Insert rows, each a mapping by column."""
    table = model.__table__
    assert isinstance(table, Table)
    connection.execute(insert(table), list(rows))
