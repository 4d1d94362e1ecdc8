"""What goes when a server, a person, a team or a group goes: everything of theirs, and no limit of
anybody else's."""

from collections.abc import Iterator

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.domain.errors import Unauthenticated
from portal.domain.principals import OPERATOR
from portal.services.access import access_groups, principals, teams, users
from portal.services.credentials import self_service
from portal.services.servers import crud
from portal.store.database import Database
from portal.store.models import Base, Grant, HealthRecord, Server
from tests.conftest import CREW, KEYS, NOTES, Write
from tests.support.factories import make_group, make_key, make_server, make_team, make_user


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session(writes=True) as session:
        yield session


def references_to(session: Session, column: str, value: str) -> dict[str, int]:
    """How many rows of which tables still name something, by foreign key or not."""
    found = {}
    for table in Base.metadata.sorted_tables:
        for candidate in table.columns:
            if candidate.name == column and table.name != "audit_events":
                number = session.scalar(
                    select(func.count()).select_from(table).where(candidate == value)
                )
                if number:
                    found[table.name] = number
    return found


def usable(session: Session, secret: str) -> set[str]:
    principal = principals.principal_for_key(session, secret, "127.0.0.1")
    return set(session.scalars(select(Server.server_id).where(authz.usable_servers(principal))))


def full_server(session: Session) -> str:
    """A server with something in every table that can hold something of it."""
    header = {"X-Key": "SECRET ${TOKEN}"}
    server_id = make_server(
        session,
        "full",
        auth_type="bearer_token",
        is_byok=True,
        static_headers=header,
        env_vars=[
            {"name": "TOKEN", "scope": "user"},
            {"name": "REGION", "scope": "global", "value": "SECRET"},
        ],
        mcp_access_groups=["all"],
        allow_all_keys=True,
    )
    mel = principals.principal_for_user(session, "mel", "127.0.0.1")
    self_service.save_key(session, mel, server_id, "SECRET key")
    self_service.save_variables(session, mel, server_id, {"TOKEN": "SECRET value"})
    session.add(HealthRecord(server_id=server_id, status="healthy", reason="ok"))
    make_key(
        session,
        user_id="otto",
        mcp_servers=(server_id,),
        mcp_tool_permissions={server_id: ("add",)},
    )
    session.flush()
    return server_id


def test_a_server_leaves_nothing_behind_that_names_it(session: Session) -> None:
    server_id = full_server(session)
    before = references_to(session, "server_id", server_id)
    assert set(before) == {
        "servers",
        "server_secrets",
        "server_variables",
        "access_group_servers",
        "grants",
        "user_credentials",
        "user_variables",
        "health_records",
    }
    crud.delete_server(session, OPERATOR, server_id)
    session.commit()
    assert references_to(session, "server_id", server_id) == {}
    assert session.scalars(select(Grant.tools).where(Grant.kind == "tools")).all() == [[]]


def test_a_server_made_anew_under_the_old_id_inherits_nothing(session: Session) -> None:
    server_id = full_server(session)
    first = session.get(Server, server_id)
    assert first is not None
    incarnation = first.incarnation
    crud.delete_server(session, OPERATOR, server_id)
    session.commit()
    full_again = make_server(session, "full", auth_type="bearer_token", is_byok=True)
    second = session.get(Server, full_again)
    assert second is not None
    assert second.incarnation != incarnation
    mel = principals.principal_for_user(session, "mel", "127.0.0.1")
    assert not authz.may_use(mel, authz.ServerFacts(second, frozenset()))
    otto = principals.principal_for_user(session, "otto", "127.0.0.1")
    assert (
        full_again
        not in session.scalars(select(Server.server_id).where(authz.usable_servers(otto))).all()
    )


@pytest.mark.parametrize("gone", ["server", "group"])
def test_a_key_whose_only_grant_is_gone_reaches_nothing_rather_than_all_of_its_team(
    session: Session, gone: str
) -> None:
    """Empty means "no limit" (rule 3), so a limit must not become empty by a deletion: it fails
    closed."""
    make_server(session, "other")
    group = make_group(session, "some", ("id-other",))
    if gone == "server":
        secret = make_key(session, user_id="mel", team_id=CREW, mcp_servers=("id-other",))
    else:
        secret = make_key(session, user_id="mel", team_id=CREW, mcp_access_groups=("some",))
    unlimited = make_key(session, user_id="mel", team_id=CREW)
    session.commit()
    assert usable(session, unlimited) == {NOTES}
    assert usable(session, secret) == set()
    if gone == "server":
        crud.delete_server(session, OPERATOR, "id-other")
    else:
        access_groups.delete_group(session, OPERATOR, group)
    session.commit()
    assert usable(session, secret) == set()


def test_a_team_whose_only_server_is_gone_does_not_set_its_keys_free(session: Session) -> None:
    make_server(session, "other")
    make_team(session, "small", members=("otto",), mcp_servers=("id-other",))
    secret = make_key(session, user_id="otto", team_id="team-small", mcp_servers=(NOTES,))
    crud.delete_server(session, OPERATOR, "id-other")
    session.commit()
    assert usable(session, secret) == set()


def test_an_admins_narrowed_key_does_not_widen_when_its_server_goes(session: Session) -> None:
    make_server(session, "other")
    secret = make_key(session, user_id="ada", mcp_servers=("id-other",))
    crud.delete_server(session, OPERATOR, "id-other")
    session.commit()
    assert usable(session, secret) == set()
    assert usable(session, KEYS["ada"]) == {NOTES}


def test_a_person_takes_everything_of_theirs_along(session: Session, write: Write) -> None:
    full_server(session)
    make_user(session, "tess", servers=(NOTES,))
    make_team(session, "small", members=("tess",))
    secret = make_key(session, user_id="tess", mcp_servers=(NOTES,))
    session.commit()
    for user_id in ("tess", "mel"):
        users.delete_user(session, OPERATOR, user_id)
        session.commit()
        assert references_to(session, "user_id", user_id) == {}
        assert references_to(session, "holder_id", user_id) == {}
    with pytest.raises(Unauthenticated):
        principals.principal_for_key(session, secret, "127.0.0.1")
    assert orphans(session) == []


def test_a_team_takes_its_grants_and_keys_along(session: Session) -> None:
    secret = make_key(session, team_id=CREW, mcp_servers=(NOTES,))
    teams.delete_team(session, OPERATOR, CREW)
    session.commit()
    assert references_to(session, "team_id", CREW) == {}
    with pytest.raises(Unauthenticated):
        principals.principal_for_key(session, secret, "127.0.0.1")
    assert orphans(session) == []


def orphans(session: Session) -> list[tuple[str, str]]:
    """Grants whose holder is no more."""
    tables = Base.metadata.tables
    owners = {
        "user": tables["users"].c.user_id,
        "team": tables["teams"].c.team_id,
        "key": tables["api_keys"].c.key_id,
    }
    return [
        (kind, holder_id)
        for kind, column in owners.items()
        for holder_id in session.scalars(
            select(Grant.holder_id).where(
                Grant.holder_kind == kind, Grant.holder_id.not_in(select(column))
            )
        )
    ]
