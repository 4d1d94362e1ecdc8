"""The authentication of an OpenAPI document, as a suggestion for the Admin."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from portal.domain.errors import InvalidRequest
from portal.domain.openapi.references import Resolver
from portal.domain.servers import AuthType, OAuthGrantType, check_headers, check_url

_MOST_SCOPES = 100
_FLOWS = {
    "authorizationCode": OAuthGrantType.AUTHORIZATION_CODE,
    "clientCredentials": OAuthGrantType.CLIENT_CREDENTIALS,
}


@dataclass(frozen=True)
class SignIn:
    """The authentication of an API. `header` is set for an API key in a custom header."""

    auth_type: AuthType = AuthType.NONE
    flow: OAuthGrantType | None = None
    authorization_url: str = ""
    token_url: str = ""
    scopes: tuple[str, ...] = ()
    header: str = ""

    @property
    def label(self) -> str:
        """Return the authentication for display."""
        return f"API key in the header {self.header}" if self.header else self.auth_type.label


def sign_in_of(document: Mapping[str, Any], resolver: Resolver) -> SignIn:
    """Return the preferred security scheme of the document.

    The order is: OAuth with a supported flow, bearer token, API key, basic.
    """
    components = resolver.object(document.get("components"))
    schemes = [
        resolver.object(one) for one in resolver.object(components.get("securitySchemes")).values()
    ]
    found = [made for scheme in schemes if (made := _of_scheme(scheme, resolver))]
    return min(found, key=_rank, default=SignIn())


def _rank(sign_in: SignIn) -> int:
    return [
        AuthType.OAUTH2,
        AuthType.BEARER_TOKEN,
        AuthType.API_KEY,
        AuthType.BASIC,
        AuthType.NONE,
    ].index(sign_in.auth_type)


def _of_scheme(scheme: Mapping[str, Any], resolver: Resolver) -> SignIn | None:
    kind = scheme.get("type")
    if kind == "oauth2":
        return _of_flows(resolver.object(scheme.get("flows")), resolver)
    if kind == "http":
        words = {"bearer": AuthType.BEARER_TOKEN, "basic": AuthType.BASIC}
        auth_type = words.get(str(scheme.get("scheme")).lower())
        return SignIn(auth_type) if auth_type else None
    name = scheme.get("name")
    if kind == "apiKey" and scheme.get("in") == "header" and isinstance(name, str):
        return _of_header(name)
    return None


def _of_header(name: str) -> SignIn | None:
    if name.lower() == "x-api-key":
        return SignIn(AuthType.API_KEY)
    if name.lower() == "authorization":
        return SignIn(AuthType.BEARER_TOKEN)
    try:
        check_headers({name: ""}, "headers")
    except InvalidRequest:
        return None
    return SignIn(header=name)


def _of_flows(flows: Mapping[str, Any], resolver: Resolver) -> SignIn | None:
    for name, flow in _FLOWS.items():
        details = resolver.object(flows.get(name))
        if details:
            scopes = tuple(
                scope for scope in resolver.object(details.get("scopes")) if scope.strip()
            )
            return SignIn(
                AuthType.OAUTH2,
                flow,
                _address(details.get("authorizationUrl")),
                _address(details.get("tokenUrl")),
                scopes[:_MOST_SCOPES],
            )
    return None


def _address(value: Any) -> str:
    try:
        check_url(str(value), "url")
    except InvalidRequest:
        return ""
    return str(value)[:2_048]
