"""Words that are none of the choices about one's own values decide nothing."""

from collections.abc import Callable

from tests.conftest import Client, Write
from tests.support.factories import make_server
from tests.support.html import filled, parse

SignedIn = Callable[[str], Client]
As = Callable[[str | None], Client]


def test_ones_own_values(signed_in: SignedIn, client: As, write: Write) -> None:
    with write() as session:
        make_server(
            session,
            "v",
            allow_all_keys=True,
            static_headers={"X-Own": "${OWN}"},
            env_vars=[{"name": "OWN", "scope": "user"}],
        )
    mel = signed_in("mel")
    form = parse(mel.get("/credentials/id-v")).find("form", action="/credentials/id-v")
    data = {**filled(form), "value-OWN": "SECRET-x", "value-OWN__mode": "Keep"}
    assert mel.post("/credentials/id-v", data=data).status_code == 422
    assert client("mel").get("/v1/mcp/server/id-v/user-env-vars").get_json()["missing_count"] == 1
