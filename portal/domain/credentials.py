"""Authentication headers, and the URL of the page where users enter their credentials."""

import base64
import re
from urllib.parse import quote

from portal.domain.servers import AuthType

_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]*")
_SCHEMES = {
    AuthType.BEARER_TOKEN: "Bearer ",
    AuthType.TOKEN: "token ",
    AuthType.AUTHORIZATION: "",
    AuthType.OAUTH2: "Bearer ",
    AuthType.OAUTH2_TOKEN_EXCHANGE: "Bearer ",
}


def auth_headers(auth_type: AuthType, value: str) -> dict[str, str]:
    """Return the header with the credential `value`.

    Bearer tokens follow RFC 6750. Basic follows RFC 7617, with `value` as `user:password`.
    """
    if auth_type is AuthType.API_KEY:
        return {"X-API-Key": value}
    if auth_type is AuthType.BASIC:
        return {"Authorization": "Basic " + base64.b64encode(value.encode()).decode()}
    if auth_type in _SCHEMES:
        return {"Authorization": _SCHEMES[auth_type] + value}
    return {}


def setup_url(public_url: str, server_id: str) -> str:
    """Return the URL of the page where a user enters credentials for a server."""
    # Most IDs need no quoting (RFC 3986, section 2.3), and lists call this for thousands of them.
    quoted = server_id if _UNRESERVED.fullmatch(server_id) else quote(server_id, safe="")
    return f"{public_url}/credentials/{quoted}"
