"""Reading one server, and its health (behaviours FET, HLT)."""

from collections.abc import Callable

import pytest

from portal.domain.principals import OPERATOR
from portal.services.instance_settings import update_preferences
from portal.services.operations.bootstrap import apply_config
from portal.store.models import HealthRecord, Server
from tests.conftest import CREW, NOTES, Client, Write
from tests.support.factories import make_server, make_team
from tests.web.api.test_servers_access import TWO_OF_CONFIG

As = Callable[[str | None], Client]


def test_fet_01_a_read_makes_a_health_check_of_its_own(
    client: As, write: Write, echo_server: str
) -> None:
    with write() as session:
        make_server(session, "echo", url=echo_server)
    row = client("ada").get("/v1/mcp/server/id-echo").get_json()
    assert (row["status"], row["health_check_reason"], row["health_check_error"]) == (
        "healthy",
        "ok",
        None,
    )
    assert row["last_health_check"].endswith("Z")
    assert row["credentials"] is None


def test_fet_02_and_03_a_config_server_is_read_by_id_name_and_alias(
    client: As, write: Write
) -> None:
    with write() as session:
        apply_config(session, OPERATOR, TWO_OF_CONFIG)
        server_id = session.query(Server).filter_by(alias="alpha").one().server_id
    for reference in (server_id, "alpha", "alpha_config"):
        answer = client("ada").get(f"/v1/mcp/server/{reference}")
        assert (answer.status_code, answer.get_json()["server_id"]) == (200, server_id)


def test_an_id_goes_before_a_name_that_looks_like_it(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "first", server_id="shadow")
        make_server(session, "shadow", server_id="aaa")
    assert client("ada").get("/v1/mcp/server/shadow").get_json()["server_name"] == "first"


def test_fet_06_a_member_reads_a_granted_config_server_sanitized_with_its_status(
    client: As, write: Write
) -> None:
    with write() as session:
        apply_config(session, OPERATOR, TWO_OF_CONFIG)
    permission = {"mcp_servers": ["alpha"]}
    assert (
        client("ada").patch(f"/v1/teams/{CREW}", {"object_permission": permission}).status_code
        == 200
    )
    row = client("mel").get("/v1/mcp/server/alpha").get_json()
    assert (row["url"], row["env_vars"]) == (None, None)
    assert row["status"] in ("unhealthy", "unknown")


def test_fet_08_an_unknown_id_is_named_to_an_admin(client: As) -> None:
    answer = client("ada").get("/v1/mcp/server/nowhere")
    assert (answer.status_code, answer.get_json()["detail"]["error"]) == (404, "not_found")
    assert "nowhere" in answer.get_json()["detail"]["message"]


def test_fet_09_a_server_that_refuses_is_unhealthy_and_says_why(client: As) -> None:
    row = client("ada").get(f"/v1/mcp/server/{NOTES}").get_json()
    assert (row["status"], row["health_check_reason"]) == ("unhealthy", "refused")
    assert row["health_check_error"]


def test_fet_10_a_restricted_key_reads_the_smallest_shape(client: As) -> None:
    row = client("kit").get(f"/v1/mcp/server/{NOTES}").get_json()
    assert row["server_id"] == NOTES
    assert {
        row[name] for name in ("health_check_error", "created_by", "status", "url", "version")
    } == {None}


def test_ids_may_hold_anything_but_slashes(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "odd", server_id="a&b=c#d?é%")
    answer = client("ada").get("/v1/mcp/server/a%26b%3Dc%23d%3F%C3%A9%25")
    assert (answer.status_code, answer.get_json()["server_id"]) == (200, "a&b=c#d?é%")


def test_hlt_01_there_is_one_row_for_each_usable_server(
    client: As, write: Write, echo_server: str
) -> None:
    with write() as session:
        make_server(session, "echo", url=echo_server)
        make_server(session, "other", url=echo_server)
        make_team(session, "second", members=("mel",), mcp_servers=(NOTES,))
    rows = client("ada").get("/v1/mcp/server/health").get_json()
    assert [(r["server_id"], r["status"], r["health_check_reason"]) for r in rows] == [
        ("id-echo", "healthy", "ok"),
        (NOTES, "unhealthy", "refused"),
        ("id-other", "healthy", "ok"),
    ]
    assert all(
        set(row) == {"server_id", "status", "health_check_reason", "last_health_check"}
        for row in rows
    )
    assert [row["server_id"] for row in client("mel").get("/v1/mcp/server/health").get_json()] == [
        NOTES
    ]


def test_hlt_02_server_ids_narrow_and_what_may_not_be_used_is_left_out(
    client: As, write: Write
) -> None:
    with write() as session:
        make_server(session, "weather")
    asked = f"/v1/mcp/server/health?server_ids={NOTES}&server_ids=id-weather&server_ids=nowhere"
    assert [r["server_id"] for r in client("ada").get(asked).get_json()] == [NOTES, "id-weather"]
    assert [r["server_id"] for r in client("mel").get(asked).get_json()] == [NOTES]


def test_a_blank_server_ids_is_no_filter(client: As) -> None:
    assert len(client("ada").get("/v1/mcp/server/health?server_ids=").get_json()) == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"static_headers": {"X": "${OWN}"}, "env_vars": [{"name": "OWN", "scope": "user"}]},
            "per_user_value",
        ),
        ({"is_byok": True, "auth_type": "api_key"}, "sign_in_needed"),
        ({"auth_type": "oauth2"}, "sign_in_needed"),
    ],
)
def test_hlt_07_what_needs_a_person_is_unknown_and_not_contacted(
    client: As, write: Write, fields: dict[str, object], reason: str
) -> None:
    with write() as session:
        make_server(session, "personal", **fields)
    row = client("ada").get("/v1/mcp/server/id-personal").get_json()
    assert (row["status"], row["health_check_reason"]) == ("unknown", reason)


def test_hlt_07_global_values_alone_are_probed(client: As, write: Write, echo_server: str) -> None:
    variables = [{"name": "SHARED", "value": "SECRET"}]
    with write() as session:
        make_server(
            session, "g", url=echo_server, static_headers={"X": "${SHARED}"}, env_vars=variables
        )
    assert client("ada").get("/v1/mcp/server/id-g").get_json()["status"] == "healthy"


def test_hlt_09_words_of_the_api_are_not_taken_for_ids(client: As, write: Write) -> None:
    with write() as session:
        make_server(session, "health", server_id="health")
    assert isinstance(client("ada").get("/v1/mcp/server/health").get_json(), list)
    assert isinstance(client("ada").get("/v1/mcp/user-env-vars/status").get_json(), list)


def test_hlt_10_a_read_probes_once_in_ten_seconds_and_a_list_never(
    client: As, write: Write
) -> None:
    client("ada").get("/v1/mcp/server")
    with write() as session:
        assert session.query(HealthRecord).count() == 0
    for path in (f"/v1/mcp/server/{NOTES}", f"/v1/mcp/server/{NOTES}", "/v1/mcp/server/health"):
        assert client("ada").get(path).status_code == 200
    with write() as session:
        assert session.query(HealthRecord).count() == 1


def test_a_refused_reader_makes_no_probe(client: As, write: Write) -> None:
    assert client("otto").get(f"/v1/mcp/server/{NOTES}").status_code == 403
    with write() as session:
        update_preferences(session, OPERATOR, {"user_mcp_management_mode": "view_all"})
    assert client("otto").get(f"/v1/mcp/server/{NOTES}").status_code == 200
    with write() as session:
        assert session.query(HealthRecord).count() == 0
