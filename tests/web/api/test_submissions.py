"""Submitting servers and deciding about them (behaviours SUB, REQ, AUD-02, AUD-03, RED-17)."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from portal.store.database import Database
from portal.store.models import AuditEvent, Preference, Proposal, Review
from tests.conftest import CREW, NOTES, Client, Write
from tests.support.counting import counted
from tests.support.factories import make_key, make_server, make_team, make_user

As = Callable[[str | None], Client]
ROOT = "/v1/mcp/server"
REGISTER = f"{ROOT}/register"
SUBMISSIONS = f"{ROOT}/submissions"
BODY = {
    "server_name": "weather",
    "transport": "http",
    "url": "https://weather.example/SECRET-path/mcp",
}


def submitted(client: As, name: str = "mel", **fields: Any) -> Any:
    """A submission of Mel's; the answer."""
    answer = client(name).post(REGISTER, {**BODY, **fields})
    assert answer.status_code == 201, answer.get_json()
    return answer.get_json()


def error_of(answer: Any) -> tuple[int, str, str | None]:
    """Status, code and field of a refusal."""
    detail = answer.get_json()["detail"]
    return answer.status_code, detail["error"], detail["field"]


def put(client: As, server_id: str, verb: str, body: object = None, name: str = "ada") -> Any:
    return client(name).put(f"{ROOT}/{server_id}/{verb}", body)


def require_fields(write: Write, *names: str) -> None:
    with write() as session:
        session.merge(
            Preference(name="general_settings", value={"mcp_required_fields": list(names)})
        )


def test_sub_03_and_aud_02_a_member_submits_and_it_waits(client: As) -> None:
    found = submitted(client, auth_type="bearer_token", credentials={"auth_value": "SECRET-shared"})
    assert (found["approval_status"], found["submitted_by"], found["created_by"]) == (
        "pending_review",
        "mel",
        "mel",
    )
    assert found["submitted_at"] is not None
    assert found["credentials"] is None
    listed = [row["server_id"] for row in client("mel").get(ROOT).get_json()]
    assert found["server_id"] not in listed
    assert client("mel").get(f"{ROOT}/{found['server_id']}").status_code == 403
    assert client("ada").get(f"{ROOT}/{found['server_id']}").status_code == 200


def test_red_17_no_answer_holds_what_was_sent(client: As) -> None:
    secret = {"auth_type": "bearer_token", "credentials": {"auth_value": "SECRET-shared"}}
    server_id = submitted(client, **secret)["server_id"]
    answers = [
        client("mel").put(f"{REGISTER}/{server_id}", {**secret, "description": "x"}),
        put(client, server_id, "reject", {}),
        put(client, server_id, "approve"),
        client("mel").get(f"{SUBMISSIONS}/mine"),
        client("ada").get(SUBMISSIONS),
        client("vera").get(SUBMISSIONS),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.get_json()
        assert "SECRET-shared" not in answer.get_data(as_text=True)
    assert all(item["credentials"] is None for item in answers[-1].get_json()["items"])


def test_aud_02_a_key_that_is_the_teams_submits_as_the_team(client: As, write: Write) -> None:
    with write() as session:
        key = make_key(session, team_id=CREW)
    assert submitted(client, key)["submitted_by"] == CREW
    assert [row["server_name"] for row in client(key).get(f"{SUBMISSIONS}/mine").get_json()] == [
        "weather"
    ]
    assert client("mel").get(f"{SUBMISSIONS}/mine").get_json() == []


@pytest.mark.parametrize(
    ("name", "word"), [("ada", "POST"), ("vera", ""), ("vic", ""), ("kit", "")]
)
def test_sub_06_only_members_submit(client: As, name: str, word: str) -> None:
    answer = client(name).post(REGISTER, BODY)
    assert error_of(answer)[:2] == (403, "forbidden")
    assert word in answer.get_json()["detail"]["message"]


def test_a_member_without_a_team_submits_nothing(client: As) -> None:
    assert error_of(client("otto").post(REGISTER, BODY)) == (400, "no_team", None)


def test_a_person_in_several_teams_says_which_one(
    signed_in: Callable[[str], Client], client: As, write: Write
) -> None:
    with write() as session:
        make_team(session, "second", members=("mel",))
        make_team(session, "third")
    mel = signed_in("mel").with_csrf()
    assert error_of(mel.post(REGISTER, BODY)) == (400, "no_team", "team_id")
    assert error_of(mel.post(REGISTER, {**BODY, "team_id": "team-third"})) == (
        400,
        "no_team",
        "team_id",
    )
    assert mel.post(REGISTER, {**BODY, "team_id": "team-second"}).status_code == 201
    assert (
        client("ada").get(SUBMISSIONS).get_json()["items"][0]["submitted_team_id"] == "team-second"
    )


def test_what_only_admins_decide_is_a_wish(client: As) -> None:
    found = submitted(
        client,
        server_id="mine",
        allow_all_keys=True,
        mcp_access_groups=["all"],
        delegate_auth_to_upstream=True,
        available_on_public_internet=False,
        approval_status="active",
        reviewed_by="ada",
        review_notes="fine",
        mcp_info={"is_public": True, "logo_url": "/static/x.svg"},
        command="npx",
        args=["evil"],
    )
    assert found["server_id"] != "mine"
    assert (found["allow_all_keys"], found["mcp_access_groups"], found["approval_status"]) == (
        False,
        [],
        "pending_review",
    )
    assert (found["delegate_auth_to_upstream"], found["available_on_public_internet"]) == (
        False,
        True,
    )
    assert (found["reviewed_by"], found["review_notes"]) == (None, None)
    item = client("ada").get(SUBMISSIONS).get_json()["items"][0]
    assert (item["command"], item["args"], item["mcp_info"]) == (
        None,
        [],
        {"logo_url": "/static/x.svg", "is_public": False},
    )
    assert item["wishes"] == {
        "server_id": "mine",
        "allow_all_keys": True,
        "mcp_access_groups": ["all"],
        "delegate_auth_to_upstream": True,
        "available_on_public_internet": False,
        "approval_status": "active",
        "reviewed_by": "ada",
        "review_notes": "fine",
        "is_public": True,
    }
    assert put(client, found["server_id"], "approve").get_json()["allow_all_keys"] is False


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        (
            {"transport": "stdio", "command": "npx", "args": []},
            (400, "stdio_not_allowed", "transport"),
        ),
        ({"url": None}, (422, "invalid", "url")),
        ({"url": "ftp://a.example"}, (400, "invalid_request", "url")),
        ({"server_name": "has-dash"}, (400, "invalid_request", "server_name")),
        ({"server_name": "notes"}, (409, "conflict", "server_name")),
        ({"server_name": 1}, (422, "invalid", "server_name")),
    ],
)
def test_bad_submissions_are_refused_and_nothing_is_stored(
    client: As, fields: dict[str, object], refusal: tuple[int, str, str]
) -> None:
    assert error_of(client("mel").post(REGISTER, {**BODY, **fields})) == refusal
    assert client("ada").get(SUBMISSIONS).get_json()["total"] == 0


def test_a_name_that_waits_for_review_is_taken(client: As) -> None:
    submitted(client)
    assert error_of(client("mel").post(REGISTER, BODY)) == (409, "conflict", "server_name")


def test_req_01_and_03_required_fields_are_named(client: As, write: Write) -> None:
    require_fields(write, "source_url", "description", "auth_type")
    answer = client("mel").post(REGISTER, {**BODY, "description": "", "auth_type": "none"})
    assert error_of(answer) == (400, "missing_required_fields", "source_url")
    assert answer.get_json()["detail"]["fields"] == ["source_url", "description", "auth_type"]
    given = {
        "source_url": "https://code.example/x",
        "description": "Rain",
        "auth_type": "bearer_token",
    }
    assert submitted(client, **given)["approval_status"] == "pending_review"
    checks = client("ada").get(SUBMISSIONS).get_json()["items"][0]["checks"]
    assert [check["passes"] for check in checks] == [True, True, True]


def test_req_04_and_07_without_rules_and_for_admins_nothing_is_required(
    client: As, write: Write
) -> None:
    submitted(client)
    require_fields(write, "source_url")
    assert client("ada").post(ROOT, {**BODY, "server_name": "direct"}).status_code == 201
    assert client("ada").get(SUBMISSIONS).get_json()["items"][0]["checks"] == [
        {"field": "source_url", "passes": False}
    ]


def test_a_typo_in_the_setting_is_the_portals_fault(client: As, write: Write) -> None:
    require_fields(write, "sauce_url")
    answer = client("mel").post(REGISTER, BODY)
    assert error_of(answer) == (500, "misconfigured", "mcp_required_fields")
    assert "sauce_url" in answer.get_json()["detail"]["message"]


def test_a_mended_submission_still_has_what_is_required(client: As, write: Write) -> None:
    require_fields(write, "description")
    server_id = submitted(client, description="Rain")["server_id"]
    answer = client("mel").put(f"{REGISTER}/{server_id}", {"description": ""})
    assert error_of(answer) == (400, "missing_required_fields", "description")


@pytest.mark.parametrize("name", ["mel", "otto", "vic", "kit"])
def test_sub_07_the_queue_is_for_admin_view(client: As, name: str) -> None:
    assert client(name).get(SUBMISSIONS).status_code == 403


def test_sub_08_09_and_21_the_queue_has_counts_and_all_a_reviewer_needs(
    client: As, write: Write
) -> None:
    first = submitted(
        client,
        static_headers={"X-A": "SECRET-a"},
        env={"LOG": "SECRET-e"},
        auth_type="bearer_token",
        env_vars=[{"name": "G", "value": "SECRET-g", "scope": "global"}],
        credentials={"auth_value": "SECRET-c"},
    )
    second = submitted(client, server_name="second")
    third = submitted(
        client, server_name="third", url=None, spec_path="https://a.example/SECRET/openapi.json"
    )
    put(client, second["server_id"], "approve")
    put(client, third["server_id"], "reject", {"review_notes": "no"})
    with write() as session:
        make_server(session, "never_submitted")
    found = client("ada").get(SUBMISSIONS).get_json()
    assert {k: v for k, v in found.items() if k != "items"} == {
        "total": 3,
        "pending_review": 1,
        "active": 1,
        "rejected": 1,
        "changes": 0,
    }
    assert [item["server_name"] for item in found["items"]] == ["third", "second", "weather"]
    item = found["items"][2]
    assert (item["url"], item["static_headers"], item["env"]) == (
        BODY["url"],
        {"X-A": "SECRET-a"},
        {"LOG": "SECRET-e"},
    )
    assert item["env_vars"][0]["value"] == "SECRET-g"
    assert (item["credentials"], found["items"][0]["spec_path"]) == (
        None,
        "https://a.example/SECRET/openapi.json",
    )
    assert first["server_id"] == item["server_id"]
    masked = client("vera").get(SUBMISSIONS)
    assert "SECRET" not in masked.get_data(as_text=True)
    assert masked.get_json()["items"][2]["url"] == "https://weather.example"


def test_the_queue_comes_in_pages_too(client: As) -> None:
    for number in range(5):
        submitted(client, server_name=f"n{number}")
    seen = []
    path = f"{SUBMISSIONS}?limit=2"
    while path:
        answer = client("ada").get(path)
        seen += [item["server_name"] for item in answer.get_json()["items"]]
        link = answer.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else ""
    assert seen == ["n4", "n3", "n2", "n1", "n0"]


def test_a_key_that_names_its_servers_sees_no_other_submission(client: As, write: Write) -> None:
    """1-system.md, 4.2: with an explicit permission an Admin's key has just those, under review or
    not."""
    live = submitted(client)["server_id"]
    _waiting = submitted(client, server_name="waits")
    put(client, live, "approve")
    with write() as session:
        narrow = [make_key(session, user_id="ada", mcp_servers=(name,)) for name in (live, NOTES)]
    found = [client(key).get(SUBMISSIONS).get_json() for key in narrow]
    assert [[item["server_id"] for item in page["items"]] for page in found] == [[live], []]
    assert [page["total"] for page in found] == [1, 0]


def test_sub_11_what_is_active_is_not_approved_again(client: As) -> None:
    assert error_of(put(client, NOTES, "approve")) == (400, "already_active", "server_id")


def test_sub_12_and_19_approved_is_at_once_live_for_who_asked(
    client: As, signed_in: Callable[[str], Client]
) -> None:
    server_id = submitted(client)["server_id"]
    assert put(client, server_id, "approve").get_json()["approval_status"] == "active"
    assert server_id in [row["server_id"] for row in client("ada").get(ROOT).get_json()]
    for asking in (client("mel"), signed_in("mel"), client("vic")):
        assert server_id in [row["server_id"] for row in asking.get(ROOT).get_json()]
        assert server_id in asking.get("/v1/me").get_json()["server_ids"]
    assert server_id not in [row["server_id"] for row in client("otto").get(ROOT).get_json()]


def test_sub_19_the_first_grant_of_a_team_takes_nothing_from_its_keys(
    client: As, write: Write, signed_in: Callable[[str], Client]
) -> None:
    """A team without grants limits nobody; were the new server its only one, a key's own servers
    would be cut off."""
    with write() as session:
        make_user(session, "lea")
        make_team(session, "fresh", members=("lea",))
        limited = make_key(session, user_id="lea", team_id="team-fresh", mcp_servers=(NOTES,))
    server_id = submitted(client, limited)["server_id"]
    put(client, server_id, "approve")
    assert client(limited).get("/v1/me").get_json()["server_ids"] == [NOTES]
    assert server_id in signed_in("lea").get("/v1/me").get_json()["server_ids"]


def test_sub_13_rejected_is_not_the_end(client: As) -> None:
    server_id = submitted(client)["server_id"]
    put(client, server_id, "reject", {"review_notes": "Which team runs it?"})
    found = put(client, server_id, "approve").get_json()
    assert (found["approval_status"], found["review_notes"]) == ("active", "Which team runs it?")
    assert put(client, server_id, "approve").status_code == 400


def test_sub_14_what_is_rejected_is_not_rejected_again(client: As) -> None:
    server_id = submitted(client)["server_id"]
    assert put(client, server_id, "reject", {}).status_code == 200
    assert error_of(put(client, server_id, "reject", {})) == (400, "already_rejected", "server_id")


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_sub_17_an_unknown_id_is_named(client: As, verb: str) -> None:
    answer = put(client, "nowhere", verb, {})
    assert answer.status_code == 404
    assert "nowhere" in answer.get_json()["detail"]["message"]


def test_sub_20_a_rejection_needs_a_body_but_no_notes(client: As) -> None:
    server_id = submitted(client)["server_id"]
    no_body = client("ada").put(
        f"{ROOT}/{server_id}/reject", headers={"Content-Type": "application/json"}
    )
    assert no_body.status_code == 422
    answer = put(client, server_id, "reject", {})
    assert (answer.status_code, answer.get_json()["review_notes"]) == (200, None)


@pytest.mark.parametrize("name", ["vera", "mel", "otto", "kit"])
def test_only_an_admin_decides(client: As, name: str) -> None:
    server_id = submitted(client)["server_id"]
    for verb in ("approve", "reject"):
        assert put(client, server_id, verb, {}, name).status_code == 403
        assert put(client, "nowhere", verb, {}, name).status_code == 403


def test_a_live_server_that_is_rejected_stops_at_once(client: As) -> None:
    assert NOTES in client("mel").get("/v1/me").get_json()["server_ids"]
    assert put(client, NOTES, "reject", {}).status_code == 200
    assert client("mel").get("/v1/me").get_json()["server_ids"] == []
    call = {"server_id": NOTES, "name": "add", "arguments": {}}
    assert client("mel").post("/v1/mcp/tools/call", call).status_code == 403


def test_aud_03_and_mine_notes_reach_the_submitter_and_mending_queues_it_again(client: As) -> None:
    server_id = submitted(client)["server_id"]
    put(client, server_id, "reject", {"review_notes": "Say what it does"})
    mine = client("mel").get(f"{SUBMISSIONS}/mine").get_json()
    assert [(m["approval_status"], m["review_notes"], m["url"]) for m in mine] == [
        ("rejected", "Say what it does", None)
    ]
    assert client("otto").get(f"{SUBMISSIONS}/mine").get_json() == []
    answer = client("mel").put(f"{REGISTER}/{server_id}", {"description": "Rain and wind"})
    assert answer.status_code == 200
    item = client("ada").get(SUBMISSIONS).get_json()["items"][0]
    assert (item["approval_status"], item["description"], item["url"]) == (
        "pending_review",
        "Rain and wind",
        BODY["url"],
    )
    assert (item["submitted_by"], item["reviewed_by"], item["review_notes"]) == (
        "mel",
        "ada",
        "Say what it does",
    )
    assert item["reviewed_at"] is not None


@pytest.mark.parametrize("name", ["ada", "vera", "otto", "vic", "kit"])
def test_only_the_submitter_mends(client: As, name: str) -> None:
    server_id = submitted(client)["server_id"]
    for target in (server_id, NOTES, "nowhere"):
        assert (
            client(name).put(f"{REGISTER}/{target}", {"description": "mine now"}).status_code == 403
        )
    assert client("mel").put(f"{REGISTER}/{NOTES}", {"description": "mine now"}).status_code == 403


def test_a_change_of_a_live_server_waits_and_the_approved_state_stays(
    client: As, database: Database
) -> None:
    server_id = submitted(client)["server_id"]
    put(client, server_id, "approve")
    moved = {
        "url": "https://elsewhere.example/SECRET-new/mcp",
        "static_headers": {"X-New": "SECRET-value"},
    }
    answer = client("mel").put(f"{REGISTER}/{server_id}", moved)
    assert answer.status_code == 200
    assert answer.get_json()["approval_status"] == "active"
    assert answer.get_json()["change_submitted_at"] is not None
    stored = client("ada").get(f"{ROOT}/{server_id}").get_json()
    assert (stored["url"], stored["static_headers"]) == (BODY["url"], {})
    queue = client("ada").get(SUBMISSIONS).get_json()
    assert (queue["changes"], queue["items"][0]["change_waits"]) == (1, True)
    with database.session() as session:
        proposal = session.scalars(select(Proposal)).one()
        step = session.scalars(select(Review)).all()
        assert b"SECRET" not in proposal.sealed
        assert "SECRET" not in str([proposal.summary, *(s.facts for s in step)])
    assert put(client, server_id, "approve").status_code == 200
    stored = client("ada").get(f"{ROOT}/{server_id}").get_json()
    assert (stored["url"], stored["static_headers"]) == (moved["url"], moved["static_headers"])
    assert error_of(put(client, server_id, "approve")) == (400, "already_active", "server_id")


def test_a_proposed_change_is_declined_and_the_server_goes_on(client: As) -> None:
    server_id = submitted(client)["server_id"]
    put(client, server_id, "approve")
    client("mel").put(f"{REGISTER}/{server_id}", {"url": "https://elsewhere.example/mcp"})
    answer = put(client, server_id, "reject", {"only_change": True, "review_notes": "Stay there"})
    assert (answer.status_code, answer.get_json()["approval_status"]) == (200, "active")
    assert client("ada").get(f"{ROOT}/{server_id}").get_json()["url"] == BODY["url"]
    assert error_of(put(client, server_id, "reject", {"only_change": True}))[0] == 409


def test_a_proposal_that_breaks_a_rule_is_refused_and_changes_nothing(client: As) -> None:
    server_id = submitted(client)["server_id"]
    put(client, server_id, "approve")
    for change, status in (
        ({"server_name": "notes"}, 409),
        ({"clear_secrets": ["url"]}, 422),
        ({"transport": "stdio"}, 400),
        ({"url": BODY["url"]}, 400),
    ):
        assert client("mel").put(f"{REGISTER}/{server_id}", change).status_code == status, change
    assert client("ada").get(SUBMISSIONS).get_json()["changes"] == 0


def test_stored_values_do_not_follow_a_submitter_to_another_host(client: As) -> None:
    """1-system.md, 3: a stored secret is never sent to a new host unasked, and a Member cannot ask
    for it."""
    fields = {
        "static_headers": {"X-A": "SECRET-a"},
        "auth_type": "bearer_token",
        "credentials": {"auth_value": "SECRET-c"},
    }
    server_id = submitted(client, **fields)["server_id"]
    moved = {"url": "https://elsewhere.example/mcp", "keep_credentials": True}
    for change in (
        moved,
        {**moved, "static_headers": {"X-A": "new"}},
        {**moved, "credentials": {"auth_value": "new"}},
    ):
        answer = client("mel").put(f"{REGISTER}/{server_id}", change)
        assert error_of(answer) == (409, "credentials_would_move", "url")
    whole = {**moved, "static_headers": {"X-A": "new"}, "credentials": {"auth_value": "new"}}
    assert client("mel").put(f"{REGISTER}/{server_id}", whole).status_code == 200


def test_a_reviewer_decides_about_what_they_saw(client: As) -> None:
    """Who mends between the look and the verdict is not approved unseen; two verdicts: the second
    is told."""
    found = submitted(client)
    client("mel").put(f"{REGISTER}/{found['server_id']}", {"url": "https://weather.example/other"})
    for verb in ("approve", "reject"):
        answer = put(client, found["server_id"], verb, {"version": found["version"]})
        assert error_of(answer) == (409, "stale_version", "version")
    assert (
        put(client, found["server_id"], "approve", {"version": found["version"] + 1}).status_code
        == 200
    )
    assert error_of(put(client, found["server_id"], "approve", {}))[1] == "already_active"


def test_every_step_is_on_the_record_without_a_secret(client: As, database: Database) -> None:
    server_id = submitted(client, credentials={"auth_value": "SECRET-c"}, auth_type="token")[
        "server_id"
    ]
    client("mel").put(f"{REGISTER}/{server_id}", {"description": "x"})
    put(client, server_id, "reject", {"review_notes": "no"})
    put(client, server_id, "approve")
    with database.session() as session:
        events = session.scalars(
            select(AuditEvent)
            .where(AuditEvent.actor_id.in_(("mel", "ada")))
            .order_by(AuditEvent.at)
        ).all()
        told = [event_.action for event_ in events]
        steps = session.scalars(select(Review).order_by(Review.at)).all()
        assert "SECRET" not in str([e.details for e in events] + [s.facts for s in steps])
    assert told == [
        "server submitted",
        "server resubmitted",
        "server rejected",
        "server approved",
        "server granted",
    ]
    assert [s.verdict for s in steps] == ["submitted", "resubmitted", "rejected", "approved"]
    assert steps[0].facts["url"]["origin"] == "https://weather.example"


def test_the_queue_costs_the_same_however_long_it_is(client: As, database: Database) -> None:
    costs = []
    for number in range(12):
        submitted(client, server_name=f"n{number}")
        with counted(database) as statements:
            client("ada").get(SUBMISSIONS)
        costs.append(len(statements))
    assert costs[1] == costs[-1]


def test_required_fields_are_those_of_the_settings(client: As) -> None:
    assert (
        client("ada").patch("/v1/settings", {"mcp_required_fields": ["description"]}).status_code
        == 200
    )
    assert client("mel").post(REGISTER, BODY).status_code == 400


@pytest.mark.parametrize("live", [False, True])
def test_ones_own_submission_is_found_by_id_name_and_alias(client: As, live: bool) -> None:
    server_id = submitted(client, alias="wx")["server_id"]
    if live:
        assert put(client, server_id, "approve").status_code == 200
    for number, reference in enumerate((server_id, "weather", "wx")):
        answer = client("mel").put(f"{REGISTER}/{reference}", {"description": f"words {number}"})
        assert (answer.status_code, answer.get_json()["server_id"]) == (200, server_id)
    assert client("mel").put(f"{REGISTER}/notes", {"description": "x"}).status_code == 403
    assert client("otto").put(f"{REGISTER}/weather", {"description": "x"}).status_code == 403
