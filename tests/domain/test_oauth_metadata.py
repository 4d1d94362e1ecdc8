"""Metadata of authorization servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.oauth_metadata import authorization_server_of, fault_of_metadata
from tests.domain.test_oauth import JSON

METADATA = {
    "issuer": "https://as.example",
    "authorization_endpoint": "https://as.example/authorize",
    "token_endpoint": "https://as.example/token",
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"issuer": "https://evil.example"}, "a different issuer"),
        ({"issuer": None}, "a different issuer"),
        ({"authorization_endpoint": None}, "authorization_endpoint is missing"),
        ({"token_endpoint": 7}, "token_endpoint is missing"),
        ({"token_endpoint": "http://as.example/token"}, "token_endpoint is not https"),
        ({"token_endpoint": "http://127.0.0.1/token"}, "token_endpoint is not https"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is not https"),
        ({"registration_endpoint": "http://as.example/r"}, "registration_endpoint is not https"),
        ({"revocation_endpoint": "http://as.example/r"}, "revocation_endpoint is not https"),
        ({"code_challenge_methods_supported": ["plain"]}, "PKCE"),
    ],
)
def test_the_fault_of_metadata_is_named_with_its_remedy(
    change: dict[str, object], named: str
) -> None:
    said, remedy = fault_of_metadata({**METADATA, **change}, "https://as.example")
    assert named in said
    assert remedy


@given(
    st.dictionaries(
        st.sampled_from([*METADATA, "scopes_supported", "code_challenge_methods_supported"]), JSON
    )
)
def test_any_metadata_can_be_read(document: dict[str, object]) -> None:
    fault_of_metadata(document, "https://as.example")
    authorization_server_of(document)
