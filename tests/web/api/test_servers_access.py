"""Who is listed which servers (behaviours ACC, and rules 1 to 9 of `1-system.md`, 4)."""

from collections.abc import Callable

import pytest

from portal.domain.principals import OPERATOR
from portal.services.instance_settings import update_preferences
from portal.services.operations.bootstrap import apply_config
from portal.store.models import Server
from tests.conftest import CREW, KEYS, NOTES, Client, Write
from tests.support.factories import make_group, make_key, make_server, make_team, make_user

As = Callable[[str | None], Client]
OUTSIDE = {"REMOTE_ADDR": "203.0.113.7"}
TWO_OF_CONFIG = {
    "mcp_servers": {
        "alpha_config": {
            "url": "https://alpha.example/mcp",
            "alias": "alpha",
            "auth_value": "SECRET",
        },
        "beta_config": {"url": "https://beta.example/mcp", "alias": "beta", "transport": "http"},
    }
}


def ids(asking: Client, query: str = "", **options: object) -> list[str]:
    answer = asking.get(f"/v1/mcp/server{query}", **options)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return [row["server_id"] for row in answer.get_json()]


def test_acc_01_servers_of_the_config_file_are_listed_as_declared(client: As, write: Write) -> None:
    with write() as session:
        session.delete(session.get(Server, NOTES))
        assert apply_config(session, OPERATOR, TWO_OF_CONFIG) == []
    rows = client("ada").get("/v1/mcp/server").get_json()
    assert [(r["alias"], r["url"], r["transport"], r["credentials"]) for r in rows] == [
        ("alpha", "https://alpha.example/mcp", "sse", None),
        ("beta", "https://beta.example/mcp", "http", None),
    ]


def test_acc_02_database_and_config_servers_stand_side_by_side_each_once(
    client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "weather")
        apply_config(session, OPERATOR, TWO_OF_CONFIG)
    rows = client("ada").get("/v1/mcp/server").get_json()
    assert len({row["server_id"] for row in rows}) == len(rows) == 4
    assert all(row["credentials"] is None for row in rows)


def test_acc_04_with_view_all_people_see_all_sanitized_and_a_restricted_key_does_not(
    client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "weather")
        update_preferences(session, OPERATOR, {"user_mcp_management_mode": "view_all"})
    assert ids(client("otto")) == [NOTES, "id-weather"]
    assert all(row["url"] is None for row in client("otto").get("/v1/mcp/server").get_json())
    assert ids(client("kit")) == [NOTES]


def test_view_all_lets_see_and_not_use(client: As, write: Write) -> None:
    with write() as session:
        update_preferences(session, OPERATOR, {"user_mcp_management_mode": "view_all"})
    call = {"server_id": NOTES, "name": "anything"}
    assert client("otto").post("/v1/mcp/tools/call", call).status_code == 403
    assert client("otto").get("/v1/me").get_json()["server_ids"] == []
    assert client("otto").get("/v1/mcp/server/health").get_json() == []


def test_acc_06_an_explicit_permission_narrows_an_admin_key(client: As, write: Write) -> None:
    with write() as session:
        for name in ("one", "two", "three"):
            make_server(session, name)
        key = make_key(session, user_id="ada", mcp_servers=("id-one", "two"))
    assert ids(client(key)) == ["id-one", "id-two"]
    assert client(key).get("/v1/mcp/server/id-three").status_code == 404


def test_an_admin_key_stays_narrow_when_the_server_it_names_is_deleted(
    client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "one")
        key = make_key(session, user_id="ada", mcp_servers=("one",))
    assert client("ada").delete("/v1/mcp/server/id-one").status_code == 202
    assert ids(client(key)) == []


def test_acc_08_a_member_filters_by_their_team(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "everybodys", allow_all_keys=True)
    assert ids(client("mel")) == ["id-everybodys", NOTES]
    assert ids(client("mel"), f"?team_id={CREW}") == [NOTES]


def test_acc_09_an_admin_filters_by_any_team(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "weather")
    assert ids(client("ada"), f"?team_id={CREW}") == [NOTES]
    assert ids(client("vera"), f"?team_id={CREW}") == [NOTES]
    assert client("ada").get("/v1/mcp/server?team_id=nowhere").status_code == 404


@pytest.mark.parametrize("name", ["otto", "kit"])
def test_who_is_not_in_the_team_or_asks_with_a_restricted_key_may_not_filter_by_it(
    client: As, name: str
) -> None:
    for team in (CREW, "nowhere"):
        answer = client(name).get(f"/v1/mcp/server?team_id={team}")
        assert (answer.status_code, answer.get_json()["detail"]["error"]) == (403, "forbidden")


@pytest.mark.parametrize("query", ["?team_id=", "?team_id=%20%20"])
def test_acc_11_a_blank_team_is_no_filter(client: As, query: str) -> None:
    assert ids(client("mel"), query) == [NOTES]


def test_acc_12_rows_come_by_name_without_regard_to_case(client: As, write: Write) -> None:
    with write() as session:
        for name in ("zeta", "Alpha", "mid"):
            make_server(session, name)
    assert ids(client("ada")) == ["id-Alpha", "id-mid", NOTES, "id-zeta"]


def test_acc_13_a_row_without_name_sorts_by_alias_and_without_both_by_id(
    client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "x", server_id="id-3", server_name=None, alias="M2")
        make_server(session, "x", server_id="m3", server_name=None, alias=None)
        make_server(session, "m1", server_id="id-1")
    assert ids(client("ada")) == ["id-1", "id-3", "m3", NOTES]


def test_acc_14_a_session_has_the_union_of_its_teams_each_server_once(
    signed_in: Callable[[str], Client], write: Write
) -> None:
    with write() as session:
        for name in ("one", "two"):
            make_server(session, name)
        make_team(session, "second", members=("mel",), mcp_servers=("one", NOTES))
    assert ids(signed_in("mel")) == [NOTES, "id-one"]


def test_acc_17_a_session_without_teams_has_its_own_possibly_empty_grants(
    signed_in: Callable[[str], Client],
) -> None:
    assert ids(signed_in("otto")) == []


def test_acc_18_a_direct_grant_of_a_person_counts_in_their_session(
    signed_in: Callable[[str], Client], write: Write
) -> None:
    with write() as session:
        make_server(session, "one")
        make_user(session, "nora", servers=("one",))
        make_team(session, "second", members=("nora",), mcp_servers=(NOTES,))
    assert ids(signed_in("nora")) == [NOTES, "id-one"]


def test_a_key_is_not_widened_to_its_owners_teams_and_grants(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "one")
        make_user(session, "nora", servers=("one",))
        make_team(session, "second", members=("nora",), mcp_servers=(NOTES,))
        bare = make_key(session, user_id="nora")
        of_team = make_key(session, user_id="nora", team_id="team-second")
    assert ids(client(bare)) == []
    assert ids(client(of_team)) == [NOTES]


def test_a_key_has_what_both_it_and_its_team_name_plus_its_own_groups(
    client: As, write: Write
) -> None:
    with write() as session:
        for name in ("a", "b", "c", "d"):
            make_server(session, name)
        group = make_group(session, "own", ("d",))
        make_team(session, "t", mcp_servers=("a", "b"))
        key = make_key(session, team_id="team-t", mcp_servers=("b", "c"), groups=(group,))
    assert ids(client(key)) == ["id-b", "id-d"]


def test_a_server_open_to_all_keys_is_everybodys(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "open", allow_all_keys=True)
    assert ids(client("otto")) == ["id-open"]


def test_servers_under_review_are_in_no_list_and_readable_for_admins_alone(
    client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "fresh", allow_all_keys=True)
        session.get(Server, "id-fresh").approval_status = "pending_review"  # type: ignore[union-attr]
    for name in ("ada", "vera", "mel", "kit"):
        assert "id-fresh" not in ids(client(name))
    found = [
        client(name).get("/v1/mcp/server/id-fresh").status_code
        for name in ("ada", "vera", "mel", "kit")
    ]
    assert found == [200, 200, 403, 403]


def test_an_internal_server_does_not_exist_for_callers_from_outside(
    client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "inner", available_on_public_internet=False, allow_all_keys=True)
    for name, status in (("ada", 404), ("otto", 403)):
        assert "id-inner" in ids(client(name))
        assert "id-inner" not in ids(client(name), environ_overrides=OUTSIDE)
        assert (
            client(name).get("/v1/mcp/server/id-inner", environ_overrides=OUTSIDE).status_code
            == status
        )
    assert (
        client("ada").post("/v1/mcp/make_public", {"mcp_server_ids": ["id-inner"]}).status_code
        == 202
    )
    assert "id-inner" in ids(client("otto"), environ_overrides=OUTSIDE)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/mcp/server/{}"),
        ("GET", "/v1/mcp/server/{}/user-env-vars"),
        ("POST", "/v1/mcp/server/{}/user-env-vars"),
        ("DELETE", "/v1/mcp/server/{}/user-env-vars"),
        ("POST", "/v1/mcp/server/{}/user-credential"),
        ("DELETE", "/v1/mcp/server/{}/user-credential"),
        ("DELETE", "/v1/mcp/server/{}"),
    ],
)
def test_rule_9_what_someone_may_not_see_and_what_is_not_there_look_the_same(
    client: As, write: Write, method: str, path: str
) -> None:
    with write() as session:
        make_server(session, "weather", is_byok=True)
    for name in ("mel", "otto", "kit"):
        hidden, missing = (
            client(name).ask(method, path.format(server_id), json={"values": {}, "credential": "x"})
            for server_id in ("id-weather", "id-nowhere")
        )
        assert hidden.status_code == missing.status_code == 403
        assert hidden.get_json() == missing.get_json()
    known = client("ada").ask(
        method, path.format("id-nowhere"), json={"values": {}, "credential": "x"}
    )
    assert (known.status_code, known.get_json()["detail"]["error"]) == (404, "not_found")


def test_acc_26_access_groups_are_named_once_and_sorted(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "one", mcp_access_groups=["tools", "data"])
        make_server(session, "two", mcp_access_groups=["data"])
    assert client("ada").get("/v1/mcp/access_groups").get_json() == {
        "access_groups": ["data", "tools"]
    }
    assert client("otto").get("/v1/mcp/access_groups").get_json() == {"access_groups": []}


def test_without_a_good_key_nothing_is_answered(client: As) -> None:
    for asking in (client(None), client("sk-made-up"), client("")):
        answer = asking.get("/v1/mcp/server")
        assert (answer.status_code, answer.get_json()["detail"]["error"]) == (
            401,
            "unauthenticated",
        )
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_key_that_is_present_decides_alone(
    signed_in: Callable[[str], Client], client: As
) -> None:
    browser = signed_in("ada")
    assert browser.get("/v1/mcp/server").status_code == 200
    assert (
        browser.get("/v1/mcp/server", headers={"Authorization": "Bearer sk-bad"}).status_code == 401
    )
    assert browser.get("/v1/mcp/server", headers={"X-API-Key": "sk-bad"}).status_code == 401
    assert ids(browser, headers={"X-API-Key": KEYS["otto"]}) == []
    assert ids(client(None), headers={"X-API-Key": KEYS["mel"]}) == [NOTES]


def test_a_session_writes_only_with_its_csrf_token(signed_in: Callable[[str], Client]) -> None:
    body = {"alias": "fresh", "url": "https://fresh.example/mcp"}
    refused = signed_in("ada").post("/v1/mcp/server", body)
    assert (refused.status_code, refused.get_json()["detail"]["field"]) == (400, "csrf_token")


def test_a_restricted_key_reaches_the_paths_it_names_and_no_others(
    client: As, write: Write
) -> None:
    with write() as session:
        key = make_key(session, user_id="mel", team_id=CREW, routes=("/v1/mcp/server",))
    assert client(key).get("/v1/mcp/server/id-notes").status_code == 200
    assert client(key).get("/v1/mcp/server/id-notes/user-env-vars").status_code == 200
    for path in ("/v1/mcp/tools", "/v1/me", "/v1/mcp/server-other"):
        assert client(key).get(path).status_code in (403, 404)
    assert client(key).get("/v1/me").status_code == 403
