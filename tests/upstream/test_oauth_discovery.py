"""The way from an MCP server to its authorization server, against a server that does each thing
wrong in turn."""

import asyncio
from collections.abc import Callable

import pytest

from portal.domain.discovery import DiscoveryStep, StepResult, Walk
from portal.domain.errors import UpstreamFailure
from portal.domain.upstream import OutboundPolicy
from portal.upstream import oauth_discovery
from portal.upstream.oauth_client import OAuthClient
from tests.support.oauth.recording import RecordingServer
from tests.support.oauth.serving import Answer
from tests.support.oauth_peers import OidcProvider, ProtectedServer

LOOPBACK = OutboundPolicy(allow_private=("127.0.0.0/8",))


@pytest.fixture
def oauth() -> OAuthClient:
    return OAuthClient(LOOPBACK)


def _fault(walk: Walk) -> DiscoveryStep:
    assert walk.found is None
    assert walk.fault is not None
    assert walk.fault.remedy
    return walk.fault


def test_a_server_on_the_official_sdk_is_understood(
    oauth: OAuthClient, protected_mcp_server: ProtectedServer
) -> None:
    walk = oauth.walk(protected_mcp_server.url)
    assert [step.verdict for step in walk.steps] == [StepResult.OK] * 3, walk.steps
    assert walk.found is not None
    assert walk.found.resource == protected_mcp_server.url
    assert walk.found.scopes == ("mcp",)
    assert walk.found.server.issuer.rstrip("/") == protected_mcp_server.issuer
    assert walk.found.server.pkce == ("S256",)
    assert walk.found.server.registration_endpoint == f"{protected_mcp_server.issuer}/register"


def test_a_certified_openid_provider_is_read_by_its_issuer(
    oauth: OAuthClient, oidc_provider: Callable[..., OidcProvider]
) -> None:
    provider = oidc_provider(redirect_uris=["http://127.0.0.1:8000/callback"])
    server = oauth.read_issuer(provider.issuer)
    assert server.issuer == provider.issuer
    assert server.sends_iss
    assert server.token_endpoint.startswith(provider.issuer)


def test_each_request_is_made_without_a_credential(
    oauth: OAuthClient, recording_as: RecordingServer
) -> None:
    assert oauth.discover(recording_as.url).server.issuer == recording_as.issuer
    assert [request.kind for request in recording_as.requests] == [
        "mcp",
        "resource_metadata",
        "metadata",
    ]
    assert all("authorization" not in request.headers for request in recording_as.requests)


def test_scopes_of_the_challenge_go_before_those_of_the_metadata(
    oauth: OAuthClient, recording_as: RecordingServer
) -> None:
    """litellm.md, 4.8.10."""
    assert recording_as.resource_metadata
    assert recording_as.challenge
    recording_as.resource_metadata["scopes_supported"] = ["all"]
    assert oauth.discover(recording_as.url).scopes == ("all",)
    recording_as.challenge += ', scope="read write"'
    assert oauth.discover(recording_as.url).scopes == ("read", "write")


@pytest.mark.parametrize("challenge", ["Bearer", None, 'Basic realm="x"'])
def test_without_a_pointer_the_well_known_places_are_tried(
    oauth: OAuthClient, recording_as: RecordingServer, challenge: str | None
) -> None:
    recording_as.challenge = challenge
    walk = oauth.walk(recording_as.url)
    assert walk.found is not None
    assert walk.steps[0].verdict is StepResult.WARN
    assert "resource_metadata" in walk.steps[0].remedy
    assert ("bearer token" in walk.steps[0].said) is (challenge != "Bearer")


def test_a_server_of_before_resource_metadata_is_its_own_authorization_server(
    oauth: OAuthClient, recording_as: RecordingServer
) -> None:
    recording_as.challenge, recording_as.resource_metadata = "Bearer", None
    walk = oauth.walk(recording_as.url)
    assert walk.found is not None
    assert walk.found.resource == recording_as.url
    assert [step.verdict for step in walk.steps] == [StepResult.WARN] * 4 + [StepResult.OK]


def test_a_server_that_shakes_hands_with_anybody_is_asked_for_its_tools(
    oauth: OAuthClient, recording_as: RecordingServer
) -> None:
    assert recording_as.challenge is not None
    recording_as.challenge += ', scope="tools:list"'
    recording_as.answer("mcp", Answer(200, json={"jsonrpc": "2.0", "id": 1, "result": {}}), times=1)
    assert oauth.discover(recording_as.url).scopes == ("tools:list",)
    assert [request.json["method"] for request in recording_as.seen("mcp")] == [
        "initialize",
        "tools/list",
    ]


def test_an_sse_server_is_asked_with_get(oauth: OAuthClient, recording_as: RecordingServer) -> None:
    recording_as.answer("mcp", Answer(405), times=1)
    assert oauth.discover(recording_as.url).server.issuer == recording_as.issuer
    assert [request.method for request in recording_as.seen("mcp")] == ["POST", "GET"]


def test_an_authorization_server_that_only_speaks_openid_is_found(
    oauth: OAuthClient, recording_as: RecordingServer
) -> None:
    recording_as.metadata, recording_as.openid_metadata = None, recording_as.metadata
    walk = oauth.walk(recording_as.url)
    assert walk.found is not None
    assert [step.verdict for step in walk.steps[-2:]] == [StepResult.WARN, StepResult.OK]


def test_an_issuer_with_a_path_is_asked_at_its_three_places(
    oauth: OAuthClient, recording_as: RecordingServer
) -> None:
    """RFC 8414, 3.1 and 5."""
    assert recording_as.resource_metadata
    recording_as.resource_metadata["authorization_servers"] = [f"{recording_as.issuer}/tenant"]
    assert "No metadata" in _fault(oauth.walk(recording_as.url)).said
    assert [request.path for request in recording_as.requests[2:]] == [
        "/.well-known/oauth-authorization-server/tenant",
        "/.well-known/openid-configuration/tenant",
        "/tenant/.well-known/openid-configuration",
    ]


def test_the_second_authorization_server_is_tried_where_the_first_is_dead(
    oauth: OAuthClient, recording_as: RecordingServer
) -> None:
    assert recording_as.resource_metadata
    recording_as.resource_metadata["authorization_servers"] = [
        "http://as.example",
        recording_as.issuer,
    ]
    walk = oauth.walk(recording_as.url)
    assert walk.found is not None
    assert walk.fault is not None
    assert "not https" in walk.fault.said


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"issuer": "https://evil.example"}, "a different issuer"),
        (
            {"authorization_endpoint": "http://as.example/authorize"},
            "authorization_endpoint is not https",
        ),
        ({"token_endpoint": "http://192.0.2.1/token"}, "token_endpoint is not https"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is not https"),
        ({"token_endpoint": None}, "token_endpoint is missing"),
        ({"code_challenge_methods_supported": ["plain"]}, "PKCE"),
    ],
)
def test_bad_metadata_end_the_way_with_a_remedy(
    oauth: OAuthClient, recording_as: RecordingServer, change: dict[str, object], named: str
) -> None:
    """R-OAUTH-23."""
    assert recording_as.metadata
    recording_as.metadata |= change
    assert named in _fault(oauth.walk(recording_as.url)).said
    with pytest.raises(UpstreamFailure, match=named):
        oauth.discover(recording_as.url)


@pytest.mark.parametrize(
    "resource", ["https://other.example/mcp", "{issuer}/another", "", None, 7, "{issuer}/mcp#x"]
)
def test_metadata_about_another_resource_are_not_used(
    oauth: OAuthClient, recording_as: RecordingServer, resource: object
) -> None:
    """RFC 9728, 3.3: else any server could send its users to the authorization server of
    another."""
    assert recording_as.resource_metadata
    named = resource.format(issuer=recording_as.issuer) if isinstance(resource, str) else resource
    recording_as.resource_metadata["resource"] = named
    assert "different resource" in _fault(oauth.walk(recording_as.url)).said
    assert not recording_as.seen("metadata")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer.html(), "not a JSON object"),
        (Answer.garbage(), "not a JSON object"),
        (Answer(json=["a", "list"]), "not a JSON object"),
        (Answer(body=b"[" * 60_000), "not a JSON object"),
        (Answer(body=b'{"issuer": "\\ud800"}'), "not a JSON object"),
        (Answer(body=b'{"issuer": "\\u0000"}'), "not a JSON object"),
        (Answer(json={"a": "x" * 20_000}), "not a JSON object"),
        (Answer(500), "HTTP 500"),
        (Answer.oversized(1), "sent too much"),
        (
            Answer.redirect("http://169.254.169.254/latest/meta-data/"),
            "redirects to another address",
        ),
        (Answer.redirect("http://127.0.0.1:1/"), "redirects to another address"),
    ],
)
@pytest.mark.parametrize("kind", ["resource_metadata", "metadata"])
def test_rubbish_in_place_of_metadata_is_named_and_stepped_over(
    oauth: OAuthClient, recording_as: RecordingServer, kind: str, answer: Answer, said: str
) -> None:
    """R-OAUTH-53, R-SSRF."""
    recording_as.answer(kind, answer)
    walk = oauth.walk(recording_as.url)
    met = next(step for step in walk.steps if said in step.said)
    assert met.verdict is StepResult.WARN
    assert (walk.found is None) is (kind == "metadata")


def test_an_answer_that_never_ends_is_given_up(
    recording_as: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk says how far it came: it has a time for each answer and one for all."""
    monkeypatch.setattr(oauth_discovery, "TIMEOUT", 0.3)
    recording_as.answer("metadata", Answer(delay_seconds=60))
    walk = asyncio.run(oauth_discovery.walk(LOOPBACK, recording_as.url))
    assert walk.found is None
    assert [step.verdict for step in walk.steps[:2]] == [StepResult.OK, StepResult.OK]
    assert "did not respond within 0.3 s" in walk.steps[2].said


def test_private_addresses_are_not_asked(recording_as: RecordingServer) -> None:
    walk = OAuthClient(OutboundPolicy()).walk(recording_as.url)
    assert "not allowed by the outbound policy" in _fault(walk).said
    assert not recording_as.requests


def test_a_pointer_to_a_private_address_is_not_followed(
    oauth: OAuthClient, recording_as: RecordingServer
) -> None:
    recording_as.challenge = (
        'Bearer resource_metadata="https://10.0.0.1/.well-known/oauth-protected-resource"'
    )
    walk = oauth.walk(recording_as.url)
    assert "not allowed by the outbound policy" in walk.steps[1].said


def test_nobody_listening_is_said(oauth: OAuthClient) -> None:
    assert "refused" in _fault(oauth.walk("http://127.0.0.1:9/mcp")).said


def test_what_the_url_hides_is_in_no_step(
    oauth: OAuthClient, recording_as: RecordingServer
) -> None:
    secret = f"{recording_as.issuer}/SECRET-in-the-path/mcp?key=SECRET-in-the-query"
    recording_as.answer(
        "other", Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{secret}"'}), times=1
    )
    assert recording_as.metadata
    recording_as.metadata["service_documentation"] = secret
    walk = oauth.walk(secret)
    assert walk.found is not None
    assert "SECRET" not in repr(walk.steps)
    assert any("…" in step.answer for step in walk.steps)
