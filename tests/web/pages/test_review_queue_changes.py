"""A Member's change of a live server that would move what people stored reaches an Admin, who
decides about it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Client
from tests.support.html import filled, parse

As = Callable[[str | None], Client]
ROOT = "/v1/mcp/server"
REGISTER = "/v1/mcp/server/register"
NEW = "http://127.0.0.1:10"
OF_PEOPLE: dict[str, dict[str, Any]] = {
    "values": {
        "static_headers": {"X-Key": "${KEY}"},
        "env_vars": [{"name": "KEY", "scope": "user"}],
    },
    "keys": {"auth_type": "bearer_token", "is_byok": True},
}
STORED = {
    "values": ("user-env-vars", {"values": {"KEY": "SECRET-value"}}),
    "keys": ("user-credential", {"credential": "SECRET-key"}),
}


@pytest.fixture(params=sorted(OF_PEOPLE))
def live(request: pytest.FixtureRequest, client: As) -> tuple[str, str]:
    """A live server of Mel's, for which a person has stored something; its id, and what was
    stored."""
    body = {
        "server_name": "wiki",
        "transport": "http",
        "url": "http://127.0.0.1:9/wiki",
        **OF_PEOPLE[request.param],
    }
    server_id = str(client("mel").post(REGISTER, body).get_json()["server_id"])
    assert client("ada").put(f"{ROOT}/{server_id}/approve").status_code == 200
    what, sent = STORED[request.param]
    assert client("vic").post(f"{ROOT}/{server_id}/{what}", sent).status_code == 200
    return server_id, request.param


def kept(client: As, server_id: str, kind: str) -> bool:
    """Whether what the person stored is still there."""
    if kind == "keys":
        return bool(client("vic").get(f"{ROOT}/{server_id}").get_json()["has_user_credential"])
    return bool(
        client("vic").get(f"{ROOT}/{server_id}/user-env-vars").get_json()["missing_count"] == 0
    )


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("door", ["API", "form"])
def test_an_admin_decides_about_what_people_stored(
    client: As, signed_in: Callable[[str], Client], live: tuple[str, str], door: str, keep: bool
) -> None:
    server_id, kind = live
    if door == "API":
        change = {
            "url": f"{NEW}/wiki",
            "static_headers": {"X-Key": "Bearer ${KEY}"} if kind == "values" else {},
        }
        answer = client("mel").put(f"{REGISTER}/{server_id}", change)
        assert answer.status_code == 200, answer.get_json()
    else:
        mel = signed_in("mel")
        path = f"/submissions/{server_id}/edit"
        form = parse(mel.get(path)).find("form", action=path)
        data = {**filled(form), "url": f"{NEW}/wiki", "url__mode": "replace", "save": "yes"}
        if kind == "values":
            data |= {"headers-0-value": "Bearer ${KEY}", "headers-0-value__mode": "replace"}
        answer = mel.post(path, data=data)
        assert answer.status_code == 303, answer.get_data(as_text=True)[-2000:]
    assert kept(client, server_id, kind)
    assert client("ada").get(f"{ROOT}/{server_id}").get_json()["url"] == "http://127.0.0.1:9/wiki"
    waiting = client("ada").get(f"{ROOT}/submissions").get_json()["items"][0]
    shown = [d for d in waiting["destinations"] if d["from"]]
    assert [(d["secret"], d["from"], d["to"]) for d in shown] == [
        (f"the {kind} of 1 person", "http://127.0.0.1:9", NEW)
    ]
    page = signed_in("ada").get(f"/admin/submissions/{server_id}").get_data(as_text=True)
    assert f"the {kind} of 1 person" in page
    refused = client("ada").put(f"{ROOT}/{server_id}/approve")
    assert (refused.status_code, refused.get_json()["detail"]["people"]) == (409, 1)
    assert (
        client("ada").put(f"{ROOT}/{server_id}/approve", {"keep_credentials": keep}).status_code
        == 200
    )
    assert kept(client, server_id, kind) is keep
