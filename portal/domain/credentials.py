"""How a credential becomes a request header, and how it is never shown."""

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
    """The header that carries `value`: RFC 6750 for bearer tokens, RFC 7617 for basic (`value` is
    `user:password`)."""
    if auth_type is AuthType.API_KEY:
        return {"X-API-Key": value}
    if auth_type is AuthType.BASIC:
        return {"Authorization": "Basic " + base64.b64encode(value.encode()).decode()}
    if auth_type in _SCHEMES:
        return {"Authorization": _SCHEMES[auth_type] + value}
    return {}


def setup_url(public_url: str, server_id: str) -> str:
    """The page where a person fills in what a server needs of them; the id is percent-encoded, `/`
    too."""
    # Nearly every id is made of what is never quoted (RFC 3986, 2.3); lists ask this for thousands.
    return f"{public_url}/credentials/{server_id if _UNRESERVED.fullmatch(server_id) else quote(server_id, safe='')}"
