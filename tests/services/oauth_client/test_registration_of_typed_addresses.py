"""What one host gave the portal as its client is handed to no other, where all addresses are typed
as well."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from sqlalchemy import select

from portal.domain.principals import OPERATOR
from portal.services.catalog import imports
from portal.services.operations import bootstrap
from portal.services.servers import destinations
from portal.store.models import Server
from tests.conftest import Client, Write
from tests.support.connecting import at_provider, connect, depart
from tests.support.factories import make_server
from tests.support.html import filled, parse
from tests.support.oauth.asking import authorize
from tests.support.oauth.recording import RecordingServer, recording_server

As = Callable[[str | None], Client]
SignedIn = Callable[[str], Client]
PATH = "/v1/mcp/server"
REGISTER = "/v1/mcp/server/register"
PEOPLE: dict[str, Any] = {"auth_type": "oauth2", "oauth2_flow": "authorization_code"}
NAMES = ("authorization_url", "token_url", "registration_url")
MIXES = {
    "token": (0, 1, 0),
    "registration": (0, 0, 1),
    "authorization": (1, 0, 0),
    "none for sign-in": (None, 1, 0),
}
"""Which of two hosts the authorization, token and registration URL are at."""


@pytest.fixture
def evil() -> Iterator[RecordingServer]:
    """Another host, which takes whatever it is sent."""
    with recording_server() as server:
        yield server


@pytest.fixture
def addresses(
    recording_as: RecordingServer, evil: RecordingServer
) -> Callable[[str], dict[str, Any]]:
    """The definition of a server with such a mix of addresses, and the client registered by the
    portal."""

    def mixed(mix: str) -> dict[str, Any]:
        hosts = (recording_as, evil)
        kinds = zip(NAMES, ("authorize", "token", "register"), MIXES[mix], strict=True)
        urls = {name: hosts[at].endpoint(kind) for name, kind, at in kinds if at is not None}
        return {"transport": "http", "url": recording_as.url, **PEOPLE, **urls}

    return mixed


class Paths:
    """The ways on which a definition comes in; each answers what was said."""

    def __init__(
        self, client: As, signed_in: SignedIn, write: Write, honest: dict[str, Any]
    ) -> None:
        self.client, self.signed_in, self.write, self.honest = client, signed_in, write, honest

    def added(self, body: dict[str, Any]) -> str:
        return self._said(self.client("ada").post(PATH, {"server_name": "mix", **body}))

    def changed(self, body: dict[str, Any]) -> str:
        server_id = self._stored()
        return self._said(self.client("ada").put(PATH, {"server_id": server_id, **body}))

    def without_its_client(self, body: dict[str, Any]) -> str:
        """A typed client may have addresses of several hosts; without it the portal would register
        itself."""
        server_id = self._stored(**{**body, "credentials": {"client_id": "typed"}})
        return self._said(
            self.client("ada").put(PATH, {"server_id": server_id, "clear_secrets": ["credentials"]})
        )

    def by_form(self, body: dict[str, Any]) -> str:
        ada = self.signed_in("ada")
        form = parse(ada.get("/servers/new")).find("form", attrs={"data-guard": True})
        return self._said(
            ada.post(
                "/servers/new", data={**filled(form), "server_name": "mix", **body, "save": "yes"}
            )
        )

    def by_draft(self, body: dict[str, Any]) -> str:
        ada = self.signed_in("ada")
        form = parse(ada.get("/servers/new")).find("form", attrs={"data-guard": True})
        data = {**filled(form), "server_name": "mix", **body, "sign_in": "yes"}
        return self._said(ada.post("/servers/new", data=data))

    def held(self, body: dict[str, Any]) -> str:
        return self._said(
            self.client("ada").post(f"{PATH}/oauth/session", {"server_name": "mix", **body})
        )

    def submitted(self, body: dict[str, Any]) -> str:
        return self._said(self.client("mel").post(REGISTER, {"server_name": "mix", **body}))

    def proposed(self, body: dict[str, Any]) -> str:
        server_id = self._submission()
        assert self.client("ada").put(f"{PATH}/{server_id}/approve").status_code == 200
        return self._said(self.client("mel").put(f"{REGISTER}/{server_id}", body))

    def resubmitted(self, body: dict[str, Any]) -> str:
        return self._said(self.client("mel").put(f"{REGISTER}/{self._submission()}", body))

    def declared(self, body: dict[str, Any]) -> str:
        with self.write() as session:
            return " ".join(
                bootstrap.apply_config(session, OPERATOR, {"mcp_servers": {"mix": body}})
            )

    def imported(self, body: dict[str, Any]) -> str:
        entry = {name: value for name, value in body.items() if name != "transport"}
        document = yaml.safe_dump({"mcp_servers": {"mix": {**entry, "transport": "http"}}})
        with self.write() as session:
            return " ".join(
                why for _, _, why in imports.import_text(session, OPERATOR, document).errors
            )

    def _said(self, answer: Any) -> str:
        text = answer.get_data(as_text=True)
        if answer.status_code == 400 and answer.is_json:
            detail = json.loads(text)["detail"]
            assert (detail["error"], detail["field"] in NAMES) == ("mixed_providers", True)
        return str(text)

    def _stored(self, **fields: Any) -> str:
        with self.write() as session:
            return make_server(session, "mix", **{**self.honest, **fields})

    def _submission(self) -> str:
        answer = self.client("mel").post(REGISTER, {"server_name": "mix", **self.honest})
        assert answer.status_code == 201, answer.get_json()
        return str(answer.get_json()["server_id"])


WAYS = tuple(name for name in vars(Paths) if not name.startswith("_"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mix", MIXES)
def test_typed_addresses_of_several_hosts_are_refused(
    client: As,
    signed_in: SignedIn,
    write: Write,
    addresses: Callable[[str], dict[str, Any]],
    evil: RecordingServer,
    recording_as: RecordingServer,
    way: str,
    mix: str,
) -> None:
    honest = {"transport": "http", "url": recording_as.url, **PEOPLE, "registration_url": None}
    said = getattr(Paths(client, signed_in, write, honest), way)(addresses(mix))
    assert "The portal would register at" in said, said[-500:]
    assert evil.issuer in said
    assert recording_as.issuer in said
    assert evil.requests == []
    with write() as session:
        row = session.scalar(select(Server).where(Server.server_name == "mix"))
        hints = {s.hint for s in row.secrets} if row is not None else set()
    assert evil.issuer not in hints or way == "without_its_client"


@pytest.fixture
def older(write: Write, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Stores a definition as an earlier version did, which did not look at its addresses."""

    def storing(**fields: Any) -> str:
        with monkeypatch.context() as earlier, write() as session:
            earlier.setattr(destinations, "refuse_mixed", lambda row, route: None)
            return make_server(session, "old", allow_all_keys=True, **fields)

    return storing


@pytest.mark.parametrize("mix", [mix for mix in MIXES if mix != "none for sign-in"])
def test_a_stored_server_of_several_hosts_registers_at_none(
    client: As,
    signed_in: SignedIn,
    older: Callable[..., str],
    addresses: Callable[[str], dict[str, Any]],
    evil: RecordingServer,
    recording_as: RecordingServer,
    mix: str,
) -> None:
    server_id = older(**addresses(mix))
    answer = authorize(client("ada"), f"{PATH}/oauth/{server_id}")
    assert (answer.status_code, answer.get_json()["detail"]["error"]) == (400, "mixed_providers")
    mel = signed_in("mel")
    form = parse(mel.get(f"/credentials/{server_id}/connect")).find(
        "form", action=f"/credentials/{server_id}/connect"
    )
    page = mel.post(f"/credentials/{server_id}/connect", data=filled(form)).get_data(as_text=True)
    assert "The portal does not send credentials from one host to another" in page
    check = client("ada").get(f"{PATH}/{server_id}/oauth-check").get_data(as_text=True)
    assert "The portal does not support that" in check
    assert (
        client("ada").put(PATH, {"server_id": server_id, "description": "words"}).status_code == 202
    )
    assert evil.requests == []
    assert recording_as.seen("register") == []


def test_a_client_that_is_registered_already_is_used_at_its_own_host_only(
    client: As,
    signed_in: SignedIn,
    write: Write,
    older: Callable[..., str],
    evil: RecordingServer,
    addresses: Callable[[str], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sign-in that an earlier version began does not end at the other host."""
    from portal.services.oauth_client import registration

    server_id = older(**addresses("token"))
    mel = signed_in("mel")
    with monkeypatch.context() as earlier:
        earlier.setattr(registration, "_check_split", lambda *_, **__: None)
        back = at_provider(depart(mel, server_id))
    mel.get(back)
    assert evil.requests == []


def test_a_waiting_submission_of_several_hosts_is_not_approved(
    client: As, write: Write, older: Callable[..., str], addresses: Callable[[str], dict[str, Any]]
) -> None:
    server_id = older(**addresses("token"))
    with write() as session:
        row = session.get_one(Server, server_id)
        row.submitted_by, row.submitted_team_id, row.approval_status = (
            "mel",
            "team-crew",
            "pending_review",
        )
        row.submitted_at = row.created_at
    answer = client("ada").put(f"{PATH}/{server_id}/approve")
    assert (answer.status_code, answer.get_json()["detail"]["error"]) == (400, "mixed_providers")


def test_addresses_of_one_host_work_and_a_typed_client_may_have_several(
    client: As,
    signed_in: SignedIn,
    addresses: Callable[[str], dict[str, Any]],
    recording_as: RecordingServer,
) -> None:
    same = {**addresses("token"), "token_url": recording_as.endpoint("token")}
    added = client("ada").post(PATH, {"server_name": "one", "allow_all_keys": True, **same})
    assert added.status_code == 201, added.get_json()
    connect(signed_in("mel"), added.get_json()["server_id"])
    assert recording_as.seen("register") != []
    typed = {**addresses("authorization"), "credentials": {"client_id": "ours"}}
    assert client("ada").post(PATH, {"server_name": "two", **typed}).status_code == 201
