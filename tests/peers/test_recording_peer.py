"""The recording authorization server records, and answers what it is told."""

import httpx2
import pytest

from tests.support.oauth.browsing import HttpBrowser
from tests.support.oauth.clients import CLIENT_REDIRECT, call_with_sdk
from tests.support.oauth.recording import RecordingServer
from tests.support.oauth.serving import Answer


def follow(url: str) -> str:
    with HttpBrowser() as browser:
        return browser.visit(url, until=CLIENT_REDIRECT).url


def test_the_sdk_client_gets_through_to_the_recording_server(recording_as: RecordingServer) -> None:
    outcome = call_with_sdk(recording_as.url, follow, mode="legacy")
    assert outcome.text == "the bearer of at-2"
    assert recording_as.last("register").json["redirect_uris"] == [CLIENT_REDIRECT]
    assert recording_as.last("authorize").query["resource"] == recording_as.url
    assert recording_as.last("token").form["code"].startswith("code-")
    assert recording_as.seen("mcp")[0].headers.get("authorization") is None


def test_what_the_recording_server_is_told_to_answer(recording_as: RecordingServer) -> None:
    token = recording_as.endpoint("token")
    recording_as.answer("token", Answer(503, json={"error": "temporarily_unavailable"}), times=1)
    assert [httpx2.post(token).status_code for _ in range(2)] == [503, 200]
    recording_as.answer("token", Answer.html())
    assert httpx2.post(token).text.startswith("<!doctype html>")
    recording_as.answer("token", Answer.garbage())
    with pytest.raises(ValueError, match=r"codec|JSON|Expecting"):
        httpx2.post(token).json()
    recording_as.answer("token", Answer.oversized(1))
    assert len(httpx2.post(token).content) > 1 << 20
    recording_as.answer("token", Answer.redirect("http://127.0.0.1:1/elsewhere", 307))
    assert httpx2.post(token).headers["location"] == "http://127.0.0.1:1/elsewhere"
    recording_as.answer("token", Answer(delay_seconds=60))
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(token, timeout=0.3)
    recording_as.answer("token", None)
    recording_as.token_fields = {"expires_in": None, "refresh_token": None, "scope": "mail"}
    assert httpx2.post(token).json() == {
        "access_token": "at-2",
        "token_type": "Bearer",
        "scope": "mail",
    }


def test_the_recording_server_describes_itself_as_told(recording_as: RecordingServer) -> None:
    assert httpx2.get(recording_as.endpoint("metadata")).json()["issuer"] == recording_as.issuer
    recording_as.metadata = None
    assert httpx2.get(recording_as.endpoint("metadata")).status_code == 404
    recording_as.registration_secret = False
    assert "client_secret" not in httpx2.post(recording_as.endpoint("register"), json={}).json()
    recording_as.response_iss, recording_as.authorize_error = (
        "https://evil.example",
        "access_denied",
    )
    url = f"{recording_as.endpoint('authorize')}?redirect_uri={CLIENT_REDIRECT}&state=s"
    back = HttpBrowser().visit(url, until=CLIENT_REDIRECT)
    assert back.query == {"error": "access_denied", "state": "s", "iss": "https://evil.example"}
    recording_as.challenge = None
    assert "www-authenticate" not in httpx2.post(recording_as.url, json={}).headers
