"""API keys over the API."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from portal.store.models import ApiKey
from tests.conftest import CREW, KEYS, Client, Write
from tests.web.api.test_users import LISTS, NOTHING

As = Callable[[str | None], Client]


def test_a_key_is_answered_once_with_its_secret_and_kept_as_a_hash(
    client: As, write: Write
) -> None:
    body = {
        "key_alias": "ci",
        "user_id": "mel",
        "team_id": CREW,
        "expires_at": "2099-01-01T01:00:00+01:00",
    }
    made = client("ada").post("/v1/keys", body).get_json()
    secret = made.pop("key")
    assert made == {
        "key_id": made["key_id"],
        "key_alias": "ci",
        "key_prefix": secret[:10],
        "user_id": "mel",
        "team_id": CREW,
        "allowed_routes": [],
        "object_permission": NOTHING,
        "access_group_ids": [],
        "expires_at": "2099-01-01T00:00:00Z",
        "last_used_at": None,
        "revoked_at": None,
        "created_at": made["created_at"],
        "follows_owner": False,
        "complies": True,
        "reach": {"basis": "team", "why": "The grants of team crew.", "server_count": 1},
    }
    assert secret.startswith("sk-")
    assert client(secret).get("/v1/me").get_json()["key"]["key_id"] == made["key_id"]
    assert secret not in client("ada").get("/v1/keys").get_data(as_text=True)
    with write() as session:
        assert secret not in str([vars(row) for row in session.query(ApiKey)])
    assert client("ada").get(f"/v1/keys/{made['key_id']}").get_json()["last_used_at"] is not None


def test_a_key_that_is_revoked_or_has_run_out_opens_nothing(client: As, write: Write) -> None:
    key_id = client("mel").get("/v1/me").get_json()["key"]["key_id"]
    assert client("ada").delete(f"/v1/keys/{key_id}").status_code == 204
    assert client("ada").get(f"/v1/keys/{key_id}").get_json()["revoked_at"] is not None
    assert client("mel").get("/v1/me").status_code == 401
    with write() as session:
        for row in session.query(ApiKey).filter_by(user_id="otto"):
            row.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    assert client("otto").get("/v1/me").status_code == 401


def test_a_key_is_narrowed_and_freed(client: As) -> None:
    key_id = client("otto").get("/v1/me").get_json()["key"]["key_id"]
    changed = client("ada").patch(
        f"/v1/keys/{key_id}", {"allowed_routes": ["/v1/me"], "key_alias": "small"}
    )
    assert (changed.get_json()["allowed_routes"], changed.get_json()["key_alias"]) == (
        ["/v1/me"],
        "small",
    )
    assert client("otto").get("/v1/mcp/server").status_code == 403
    assert client("otto").get("/v1/me").get_json()["restricted"] is True
    client("ada").patch(f"/v1/keys/{key_id}", {"allowed_routes": []})
    assert client("otto").get("/v1/mcp/server").status_code == 200


def test_no_secret_of_a_key_is_in_any_list(client: As) -> None:
    for path in (*LISTS, "/v1/me", "/v1/me/keys"):
        text = client("ada").get(path).get_data(as_text=True)
        assert not any(secret in text for secret in KEYS.values())
