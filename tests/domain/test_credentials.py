"""How a credential becomes a header, and the link to where it is set."""

import base64

import pytest

from portal.domain.credentials import auth_headers, setup_url
from portal.domain.servers import AuthType


@pytest.mark.parametrize(
    ("auth_type", "headers"),
    [
        (AuthType.BEARER_TOKEN, {"Authorization": "Bearer k"}),
        (AuthType.API_KEY, {"X-API-Key": "k"}),
        (AuthType.TOKEN, {"Authorization": "token k"}),
        (AuthType.AUTHORIZATION, {"Authorization": "k"}),
        (AuthType.OAUTH2, {"Authorization": "Bearer k"}),
        (AuthType.OAUTH2_TOKEN_EXCHANGE, {"Authorization": "Bearer k"}),
        (AuthType.NONE, {}),
        (AuthType.AWS_SIGV4, {}),
    ],
)
def test_each_auth_type_sends_its_header(auth_type: AuthType, headers: dict[str, str]) -> None:
    assert auth_headers(auth_type, "k") == headers


def test_basic_is_base64_of_user_and_password_in_utf_8() -> None:
    sent = auth_headers(AuthType.BASIC, "user:pässword")["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == "user:pässword"


def test_the_set_up_link_holds_any_id() -> None:
    assert (
        setup_url("https://p.example", "a/b ?#é")
        == "https://p.example/credentials/a%2Fb%20%3F%23%C3%A9"
    )
