"""Explain says what the grid, the API and a call do, for a thousand random principals and
servers."""

import pytest
from hypothesis import Phase, assume, event, given, settings
from sqlalchemy.orm import Session

from portal.domain.errors import Forbidden, NotFound
from portal.domain.principals import OPERATOR, Principal, Role
from portal.services.access import explain
from portal.services.servers import crud, grid
from portal.services.servers.grid_filters import GridQuery
from portal.services.tools import calls
from portal.store.database import Database
from tests.authorization.test_server_access import (
    INSIDE,
    OUTSIDE,
    SERVERS,
    WORLDS,
    World,
    build,
    is_left,
    principal_of,
)
from tests.conftest import NOTES

# An Admin who sees every server from wherever they ask.
ASKER = Principal(name="asker", role=Role.ADMIN, is_internal=True)


def may_call(session: Session, principal: Principal, server_id: str, tool: str) -> bool:
    """Whether a call gets past authorization; what the upstream then answers is another matter."""
    try:
        calls.authorize_call(session, principal, server_id, tool)
    except (Forbidden, NotFound):
        return False
    return True


def pairs_that_agree(session: Session, world: World) -> int:
    """Compare for each server of a world; how many there were."""
    who = {"user_id": "u"} if world.key is None else {"key_id": "k"}
    seen_from = INSIDE if world.inside else OUTSIDE
    if is_left(world):
        found = explain.explain_access(
            session, ASKER, key_id="k", server_id=NOTES, address=seen_from
        )
        assert (found.allowed, found.decided_by) == (False, "identity")
        assert found.next_step is not None
        assert found.next_step.target_id == world.key_team
        return 1
    principal = principal_of(session, world)
    usable = {
        card.server_id
        for card in grid.get_grid(session, principal, GridQuery()).cards
        if card.usable
    }
    listed = {found["server_id"] for found in crud.list_servers(session, principal).items}
    in_playground = {server_id for server_id, _ in grid.list_usable(session, principal)}
    there = set(SERVERS) - world.gone_servers
    for server_id in there:
        asked = {**who, "server_id": server_id, "address": seen_from}
        found = explain.explain_access(session, ASKER, **asked)
        with_tool = explain.explain_access(session, ASKER, **asked, tool="tool")
        assert found.allowed is (server_id in usable) is (server_id in in_playground)
        assert found.allowed <= (server_id in listed)
        if not (world.view_all or principal.role.has_admin_view):
            assert found.allowed is (server_id in listed)
        assert with_tool.allowed is may_call(session, principal, server_id, "tool")
        if found.allowed:
            another = explain.explain_access(session, ASKER, **asked, tool="another")
            assert another.allowed is may_call(session, principal, server_id, "another")
        verdicts = {answer.rule: answer.verdict for answer in found.rules}
        assert verdicts[found.decided_by] in (
            ("grants",) if found.allowed else ("refuses", "not_met")
        )
        assert (found.next_step is None) is found.allowed
        assert all(answer.why for answer in with_tool.rules)
        event(f"{found.decided_by}: {found.allowed}")
    return len(there)


@pytest.mark.timeout(600)
def test_explain_agrees_with_grid_list_and_call(database: Database) -> None:
    """For a thousand pairs at least: up to four servers in each world, less those that are gone."""
    pairs = []

    @settings(
        max_examples=350,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
    )
    @given(world=WORLDS)
    def agree(world: World) -> None:
        assume(
            world.key is None or world.key_has_owner or world.key_team is not None
        )  # no keys of nobody
        with database.session(writes=True) as session:
            build(session, world)
            pairs.append(pairs_that_agree(session, world))
            session.rollback()

    agree()
    assert sum(pairs) >= 1_000


def test_the_operator_may_explain(database: Database) -> None:
    with database.session() as session:
        assert (
            explain.explain_access(
                session, OPERATOR, user_id="mel", server_id="id-notes"
            ).decided_by
            == "grants"
        )
