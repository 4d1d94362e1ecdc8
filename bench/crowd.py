"""A company in a database: 10,000 servers, 2,000 users in 200 teams, 50,000 stored values."""

from dataclasses import dataclass

from sqlalchemy import Connection

from bench.seeding import (
    GROUPS,
    KEY_RING,
    PASSWORD,
    Seeded,
    password_hash,
    put,
    put_groups,
    put_servers,
    server_name,
)
from portal.app import open_database
from portal.domain.principals import Role
from portal.settings import parse_key_ring, read_settings
from portal.store import schema
from portal.store.models import ApiKey, Grant, Team, TeamMember, User, UserVariable
from portal.store.vault import Place, Vault

SERVERS = 10_000
PEOPLE = 2_000
TEAMS = 200
VALUES = 50_000
_ASKING = 3
"""The servers of the first groups require a value; each team has one of these groups."""
_ADMIN_EVERY = 10


@dataclass(frozen=True)
class Member:
    """One of the users, by number."""

    number: int
    password: str = PASSWORD

    @property
    def user_id(self) -> str:
        """The user's id."""
        return f"person-{self.number:04}"

    @property
    def email(self) -> str:
        """The email they sign in with."""
        return f"{self.user_id}@bench.example"

    @property
    def key(self) -> str:
        """Their API key."""
        return Seeded.key(self.user_id)

    @property
    def team(self) -> int:
        """The number of their team."""
        return self.number % TEAMS

    def server(self, choice: int) -> str:
        """Return one of their team's servers."""
        return server_name(choice % (SERVERS // GROUPS) * GROUPS + self.team % GROUPS)

    def asking(self, choice: int) -> str:
        """Return one of their team's servers that require the value `TOKEN`."""
        return server_name(choice % (SERVERS // GROUPS) * GROUPS + self.team % _ASKING)


def fill(env: dict[str, str]) -> None:
    """Create the tables and the company in the empty database of the environment `env`."""
    database = open_database(read_settings(env))
    schema.upgrade(database.engine)
    with (
        database.engine.connect().execution_options(portal_writes=True) as connection,
        connection.begin(),
    ):
        put_groups(connection)
        put_servers(connection, SERVERS)
        _put_people(connection)
        _put_values(connection)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    database.engine.dispose()


def _put_people(connection: Connection) -> None:
    hashed = password_hash()
    people = [Member(number) for number in range(PEOPLE)]
    put(
        connection,
        User,
        [
            {
                "user_id": p.user_id,
                "email": p.email,
                "password_hash": hashed,
                "role": (Role.MEMBER if p.number % _ADMIN_EVERY else Role.ADMIN).value,
            }
            for p in people
        ],
    )
    put(
        connection,
        Team,
        [{"team_id": f"team-{n}", "team_alias": f"Team {n:03}"} for n in range(TEAMS)],
    )
    put(
        connection,
        TeamMember,
        [{"team_id": f"team-{p.team}", "user_id": p.user_id} for p in people],
    )
    granted = {(n, group) for n in range(TEAMS) for group in (n % GROUPS, n % _ASKING)}
    put(
        connection,
        Grant,
        [
            {
                "holder_kind": "team",
                "holder_id": f"team-{n}",
                "kind": "access_group",
                "access_group_id": f"group-{group}",
            }
            for n, group in sorted(granted)
        ],
    )
    put(
        connection,
        ApiKey,
        [
            {
                "key_hash": Seeded.hash_of(p.key),
                "key_prefix": "sk-bench",
                "user_id": p.user_id,
                "team_id": f"team-{p.team}",
            }
            for p in people
        ],
    )


def _put_values(connection: Connection) -> None:
    sealed = Vault(parse_key_ring(KEY_RING)).seal("value", Place("bench", "", "", ""))
    each = VALUES // PEOPLE
    put(
        connection,
        UserVariable,
        [
            {
                "user_id": (person := Member(n // each)).user_id,
                "server_id": person.asking(n),
                "name": "TOKEN",
                "sealed": sealed,
            }
            for n in range(VALUES)
        ],
    )
