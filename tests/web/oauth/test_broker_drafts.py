"""MCP clients sign in to a definition under test by way of the portal (behaviours TMP-03, 05,
07)."""

from typing import Any

from flask import Flask

from portal.app import create_app, open_database
from portal.settings import Settings
from portal.store.models import UserCredential
from tests.conftest import Client, Write
from tests.support.factories import make_server
from tests.support.oauth.asking import authorize, code_for, redeem
from tests.support.oauth.recording import RecordingServer
from tests.web.api.test_drafts import _ADA, PATH, STORED, As, count, outlive


def body_for(upstream: RecordingServer, **changes: Any) -> dict[str, Any]:
    """A definition at the recording authorization server, which is discovered."""
    named = {
        "server_name": "draft",
        "url": upstream.url,
        "transport": "http",
        "auth_type": "oauth2",
    }
    return {
        **named,
        "credentials": {"client_id": "drafted", "client_secret": "SECRET-of-the-draft"},
        **changes,
    }


def test_tmp_03_and_07_a_client_signs_in_to_it_by_way_of_two_processes(
    app: Flask, settings: Settings, client: As, write: Write, recording_as: RecordingServer
) -> None:
    """Made on one worker, authorized on the other, redeemed on the first: with the stored client,
    for nobody else."""
    with write() as session:
        saved = make_server(
            session, "saved", url=recording_as.url, auth_type="oauth2", credentials=STORED
        )
    body = body_for(recording_as, server_id=saved, credentials=None)
    assert client("ada").post(PATH, body).status_code == 200
    other = open_database(settings)
    second = create_app(settings, database=other)
    elsewhere = Client(second.test_client(use_cookies=False), {"Authorization": f"Bearer {_ADA}"})
    base = f"/v1/mcp/server/oauth/{saved}"
    code = code_for(elsewhere, base)
    answer = redeem(client("ada"), code, base)
    other.engine.dispose()
    assert (answer.status_code, answer.get_json()["access_token"]) == (200, "at-1")
    assert "SECRET" not in answer.get_data(as_text=True)
    assert recording_as.last("authorize").query["client_id"] == STORED["client_id"]
    sent = recording_as.last("token")
    assert (
        sent.form.get("client_secret", "") == STORED["client_secret"]
        or "authorization" in sent.headers
    )
    assert count(write, UserCredential) == 0, "what is tried with it is not the saved server's"


def test_tmp_05_when_it_is_over_there_is_nothing_to_sign_in_to(
    client: As, write: Write, recording_as: RecordingServer
) -> None:
    server_id = client("ada").post(PATH, body_for(recording_as)).get_json()["server_id"]
    base = f"/v1/mcp/server/oauth/{server_id}"
    assert authorize(client("ada"), base).status_code == 307
    assert authorize(client("mel"), base).status_code == 403, (
        "one under test is for those with admin view"
    )
    assert authorize(client(None), base).status_code == 401
    outlive(write, server_id)
    assert authorize(client("ada"), base).status_code == 404
    assert redeem(client("ada"), "a-code", base).status_code == 404
    assert authorize(client("mel"), base).status_code == 403
