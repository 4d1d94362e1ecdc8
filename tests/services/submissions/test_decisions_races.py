"""Two people at the same submission at the same moment: one wins, the other is told, and the record
tells of one."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import select

from portal.domain.principals import OPERATOR, Role
from portal.services.access import users
from portal.services.audit import verification
from portal.store.database import Database
from portal.store.models import AuditEvent, Proposal, Review
from tests.conftest import CREW, Client, Write
from tests.support.factories import make_key, make_user

As = Callable[[str | None], Client]
ROOT = "/v1/mcp/server"
ROUNDS = 4
DECISIONS = {"server approved", "server rejected", "server change declined"}


@pytest.fixture
def admins(client: As, write: Write) -> tuple[Client, Client]:
    """Ada, and an Admin beside her."""
    with write() as session:
        make_user(session, "adam", Role.ADMIN)
        other = make_key(session, user_id="adam")
    return client("ada"), client(other)


def at_once(*asking: tuple[Client, str, str, object]) -> list[tuple[int, str | None]]:
    """Send all (who, method, path, body) in the same moment; status and error code of each
    answer."""
    together = Barrier(len(asking))

    def send(asked: tuple[Client, str, str, object]) -> tuple[int, str | None]:
        who, method, path, body = asked
        together.wait(10)
        answer = who.ask(method, path, json=body)
        detail = (answer.get_json(silent=True) or {}).get("detail") or {}
        return answer.status_code, detail.get("error")

    with ThreadPoolExecutor(len(asking)) as pool:
        return list(pool.map(send, asking))


def submitted(client: As, number: int) -> Any:
    body = {
        "server_name": f"weather{number}",
        "transport": "http",
        "url": f"https://weather{number}.example/mcp",
    }
    answer = client("mel").post(f"{ROOT}/register", body)
    assert answer.status_code == 201, answer.get_json()
    return answer.get_json()


def on_record(database: Database, server_id: str) -> tuple[list[str], list[str]]:
    """What was decided about a server: the audit's words, and the verdicts of the reviews."""
    with database.session() as session:
        told = select(AuditEvent.action).where(
            AuditEvent.target_id == server_id, AuditEvent.action.in_(DECISIONS)
        )
        steps = select(Review.verdict).where(
            Review.server_id == server_id, Review.verdict.in_(("approved", "rejected", "declined"))
        )
        return list(session.scalars(told)), list(session.scalars(steps))


def chain_holds(database: Database) -> bool:
    with database.session(writes=True) as session:
        return verification.verify(session, OPERATOR).fault is None


def one_won(answers: Sequence[tuple[int, str | None]], told: tuple[int, str]) -> bool:
    return sorted(answers, key=str) == sorted([(200, None), told], key=str)


def test_two_who_approve_at_once(
    client: As, admins: tuple[Client, Client], database: Database
) -> None:
    for number in range(ROUNDS):
        path = f"{ROOT}/{submitted(client, number)['server_id']}/approve"
        answers = at_once(*((admin, "PUT", path, {}) for admin in admins))
        assert one_won(answers, (400, "already_active")), answers
        assert on_record(database, path.split("/")[4]) == (["server approved"], ["approved"])
    assert chain_holds(database)


def test_two_who_reject_at_once(
    client: As, admins: tuple[Client, Client], database: Database
) -> None:
    for number in range(ROUNDS):
        path = f"{ROOT}/{submitted(client, number)['server_id']}/reject"
        answers = at_once(*((admin, "PUT", path, {}) for admin in admins))
        assert one_won(answers, (400, "already_rejected")), answers
        assert on_record(database, path.split("/")[4]) == (["server rejected"], ["rejected"])


def test_one_who_approves_what_another_rejects(
    client: As, admins: tuple[Client, Client], database: Database
) -> None:
    """Both saw the same version; whoever is second is told that it is another one now."""
    for number in range(ROUNDS):
        found = submitted(client, number)
        server_id = found["server_id"]
        seen = {"version": found["version"]}
        answers = at_once(
            (admins[0], "PUT", f"{ROOT}/{server_id}/approve", seen),
            (admins[1], "PUT", f"{ROOT}/{server_id}/reject", seen),
        )
        assert one_won(answers, (409, "stale_version")), answers
        verdict = "approved" if answers[0][0] == 200 else "rejected"
        assert on_record(database, server_id) == ([f"server {verdict}"], [verdict])
        row = admins[0].get(f"{ROOT}/{server_id}").get_json()
        assert (row["approval_status"], row["version"]) == (
            "active" if verdict == "approved" else "rejected",
            found["version"] + 1,
        )


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_two_who_decide_about_a_change_at_once(
    client: As, admins: tuple[Client, Client], database: Database, verb: str
) -> None:
    for number in range(ROUNDS):
        server_id = submitted(client, number)["server_id"]
        admins[0].put(f"{ROOT}/{server_id}/approve")
        moved = client("mel").put(
            f"{ROOT}/register/{server_id}", {"url": "https://elsewhere.example/mcp"}
        )
        seen = {"version": moved.get_json()["version"]}
        answers = at_once(
            (admins[0], "PUT", f"{ROOT}/{server_id}/approve", seen),
            (admins[1], "PUT", f"{ROOT}/{server_id}/{verb}", {**seen, "only_change": True}),
        )
        assert [code for _, code in answers].count(None) == 1, answers
        assert {code for _, code in answers} <= {
            None,
            "already_active",
            "stale_version",
            "conflict",
        }
        told, steps = on_record(database, server_id)
        assert (len(told), len(steps)) == (2, 2), (told, steps)
        with database.session() as session:
            assert session.get(Proposal, server_id) is None


def test_two_changes_proposed_at_once(
    client: As, write: Write, admins: tuple[Client, Client]
) -> None:
    """The submitter's browser and their key: neither is lost unseen, and one proposal waits."""
    with write() as session:
        other = client(make_key(session, user_id="mel", team_id=CREW))
    for number in range(ROUNDS):
        server_id = submitted(client, number)["server_id"]
        version = admins[0].put(f"{ROOT}/{server_id}/approve").get_json()["version"]
        answers = at_once(
            *(
                (
                    mel,
                    "PUT",
                    f"{ROOT}/register/{server_id}",
                    {"url": f"https://{host}.example/mcp", "version": version},
                )
                for mel, host in ((client("mel"), "one"), (other, "two"))
            )
        )
        assert one_won(answers, (409, "stale_version")), answers
        host = "one" if answers[0][0] == 200 else "two"
        assert admins[1].put(f"{ROOT}/{server_id}/approve").status_code == 200
        assert (
            admins[1].get(f"{ROOT}/{server_id}").get_json()["url"] == f"https://{host}.example/mcp"
        )


def test_two_first_proposals_without_a_version_leave_one(
    client: As, admins: tuple[Client, Client]
) -> None:
    for number in range(ROUNDS):
        server_id = submitted(client, number)["server_id"]
        admins[0].put(f"{ROOT}/{server_id}/approve")
        answers = at_once(
            *(
                (
                    client("mel"),
                    "PUT",
                    f"{ROOT}/register/{server_id}",
                    {"url": f"https://{host}.example/mcp"},
                )
                for host in ("one", "two")
            )
        )
        assert answers == [(200, None)] * 2
        assert admins[0].get(f"{ROOT}/submissions").get_json()["changes"] == number + 1


def test_two_submissions_of_one_name_at_once(client: As) -> None:
    for number in range(ROUNDS):
        body = {
            "server_name": f"same{number}",
            "transport": "http",
            "url": "https://same.example/mcp",
        }
        answers = at_once(*[(client("mel"), "POST", f"{ROOT}/register", body)] * 2)
        assert sorted(answers, key=str) == [(201, None), (409, "conflict")]


def test_two_admins_who_edit_at_once(
    client: As, admins: tuple[Client, Client], database: Database
) -> None:
    """Both saved what they saw at one version: the second is told, and nothing of theirs is
    written."""
    for number in range(ROUNDS):
        version = admins[0].get(f"{ROOT}/id-notes").get_json()["version"]
        answers = at_once(
            *(
                (
                    admin,
                    "PUT",
                    ROOT,
                    {
                        "server_id": "id-notes",
                        "description": f"{word} {number}",
                        "version": version,
                    },
                )
                for admin, word in zip(admins, ("left", "right"), strict=True)
            )
        )
        assert sorted(answers, key=str) == [(202, None), (409, "stale_version")]
        word = "left" if answers[0][0] == 202 else "right"
        found = admins[0].get(f"{ROOT}/id-notes").get_json()
        assert (found["description"], found["version"]) == (f"{word} {number}", version + 1)
    assert chain_holds(database)


def test_two_admins_who_demote_one_another_leave_one(
    admins: tuple[Client, Client], write: Write
) -> None:
    for _ in range(ROUNDS):
        answers = at_once(
            (admins[0], "PATCH", "/v1/users/adam", {"role": "internal_user"}),
            (admins[1], "PATCH", "/v1/users/ada", {"is_active": False}),
        )
        assert [status for status, _ in answers].count(200) == 1, answers
        # The slower one is told that nobody would be left, or is no Admin any more.
        assert {status for status, _ in answers} & {400, 401, 403}
        with write() as session:
            for name in ("ada", "adam"):
                users.change_user(
                    session, OPERATOR, name, {"role": "proxy_admin", "is_active": True}
                )


def test_two_admins_who_delete_one_another_leave_one(admins: tuple[Client, Client]) -> None:
    answers = at_once(
        (admins[0], "DELETE", "/v1/users/adam", None),
        (admins[1], "DELETE", "/v1/users/ada", None),
    )
    assert [status for status, _ in answers].count(204) == 1, answers
