"""What the portal says to token, registration and revocation endpoints, and what it takes from
them."""

import base64
from typing import Any

import pytest

from portal.domain.errors import UpstreamFailure
from portal.domain.oauth import AuthorizationServer, Client
from portal.domain.upstream import OutboundPolicy
from portal.upstream.oauth_client import OAuthClient, OAuthRefused
from tests.support.oauth.recording import RecordingServer
from tests.support.oauth.serving import Answer

GRANT = {"grant_type": "authorization_code", "code": "c"}


@pytest.fixture
def oauth() -> OAuthClient:
    return OAuthClient(OutboundPolicy(allow_private=("127.0.0.0/8",)))


def _server(peer: RecordingServer, *methods: str) -> AuthorizationServer:
    return AuthorizationServer(
        issuer=peer.issuer,
        token_endpoint=peer.endpoint("token"),
        registration_endpoint=peer.endpoint("register"),
        revocation_endpoint=peer.endpoint("revoke"),
        token_endpoint_auth_methods=methods,
    )


@pytest.mark.parametrize(
    ("methods", "client", "is_basic", "form"),
    [
        ((), Client("id", "se cret"), False, {"client_id": "id", "client_secret": "se cret"}),
        (("client_secret_basic",), Client("id", "se cret"), True, {}),
        (
            ("client_secret_basic", "client_secret_post"),
            Client("id", "s"),
            False,
            {"client_id": "id"},
        ),
        (("private_key_jwt",), Client("id", "s"), False, {"client_id": "id", "client_secret": "s"}),
        (("client_secret_basic",), Client("id"), False, {"client_id": "id"}),
        ((), Client("id", "se cret", "client_secret_basic"), True, {}),
        ((), Client("id", "s", "none"), False, {"client_id": "id"}),
    ],
)
def test_the_client_authenticates_as_the_server_wants(
    oauth: OAuthClient,
    recording_as: RecordingServer,
    methods: tuple[str, ...],
    client: Client,
    is_basic: bool,
    form: dict[str, str],
) -> None:
    """RFC 6749, 2.3.1."""
    answer = oauth.ask_for_token(_server(recording_as, *methods), client, GRANT)
    assert answer["access_token"] == "at-1"
    asked = recording_as.last("token")
    header = "Basic " + base64.b64encode(b"id:se%20cret").decode()
    assert asked.headers.get("authorization") == (header if is_basic else None)
    assert form.items() <= asked.form.items()
    assert ("client_secret" in asked.form) is (
        not is_basic and bool(client.client_secret) and client.auth_method == ""
    )
    assert GRANT.items() <= asked.form.items()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            Answer(400, json={"error": "invalid_grant", "error_description": "SECRET"}),
            "invalid_grant",
        ),
        (Answer(200, json={"error": "bad_verification_code"}), "bad_verification_code"),
        (Answer(401, json={"error": "SECRET0123"}), "HTTP 401"),
        (Answer(400, json={"error": "<script>SECRET"}), "HTTP 400"),
        (Answer(400, json={"error": {"a": "SECRET"}}), "HTTP 400"),
        (Answer(400, json={"error": "a" * 100}), "HTTP 400"),
        (Answer.html(403), "HTTP 403"),
        (Answer(503), "HTTP 503"),
        (
            Answer(307, json={"access_token": "SECRET"}, headers={"Location": "/elsewhere"}),
            "HTTP 307",
        ),
    ],
)
def test_an_error_is_known_by_its_word_and_nothing_else_of_it(
    oauth: OAuthClient, recording_as: RecordingServer, answer: Answer, error: str
) -> None:
    recording_as.answer("token", answer)
    with pytest.raises(OAuthRefused) as refused:
        oauth.ask_for_token(_server(recording_as), Client("id"), GRANT)
    assert refused.value.error == error
    assert refused.value.status == answer.status
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer.html(), "did not return JSON"),
        (Answer.garbage(), "did not return JSON"),
        (Answer(json=["SECRET"]), "did not return JSON"),
        (Answer(body=b"[" * 60_000), "did not return JSON"),
        (Answer(body=b'{"access_token": "\\ud800"}'), "did not return JSON"),
        (Answer.oversized(1), "sent too much"),
        (Answer.redirect("http://169.254.169.254/"), "redirects to another address"),
        (Answer.redirect("https://evil.example/", 307), "redirects to another address"),
    ],
)
def test_rubbish_is_refused_and_not_followed(
    oauth: OAuthClient, recording_as: RecordingServer, answer: Answer, said: str
) -> None:
    """R-OAUTH-53: the secret in the form goes to the token endpoint and nowhere else."""
    recording_as.answer("token", answer)
    with pytest.raises(UpstreamFailure, match=said):
        oauth.ask_for_token(_server(recording_as), Client("id", "SECRET"), GRANT)
    assert len(recording_as.requests) == 1


def test_a_slow_token_endpoint_is_given_up(
    oauth: OAuthClient, recording_as: RecordingServer
) -> None:
    recording_as.answer("token", Answer(delay_seconds=60))
    with pytest.raises(UpstreamFailure, match="did not respond within"):
        oauth.ask_for_token(_server(recording_as), Client("id"), GRANT, timeout=0.2)


def test_an_error_that_is_null_is_none(oauth: OAuthClient, recording_as: RecordingServer) -> None:
    recording_as.answer("register", Answer(201, json={"client_id": "c", "error": None}))
    assert oauth.register(_server(recording_as), {"client_name": "MCP Portal"})["client_id"] == "c"


@pytest.mark.parametrize(
    "document", [{}, {"client_id": ""}, {"client_id": 7}, {"client_id": "a\x00b"}]
)
def test_a_registration_needs_a_client_id(
    oauth: OAuthClient, recording_as: RecordingServer, document: dict[str, Any]
) -> None:
    recording_as.answer("register", Answer(201, json=document))
    with pytest.raises(UpstreamFailure):
        oauth.register(_server(recording_as), {"client_name": "MCP Portal"})


def test_a_revocation_may_be_answered_with_nothing(
    oauth: OAuthClient, recording_as: RecordingServer
) -> None:
    """RFC 7009, 2.2."""
    oauth.revoke(_server(recording_as), Client("id", "s"), "rt-1", hint="refresh_token")
    form = recording_as.last("revoke").form
    assert (form["token"], form["token_type_hint"], form["client_id"]) == (
        "rt-1",
        "refresh_token",
        "id",
    )
    recording_as.answer("revoke", Answer(503))
    with pytest.raises(OAuthRefused):
        oauth.revoke(_server(recording_as), Client("id", "s"), "rt-1", hint="refresh_token")
