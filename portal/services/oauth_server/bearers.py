"""Authentication with access tokens of the portal."""

from dataclasses import replace

from sqlalchemy.orm import Session

from portal.domain.errors import Unauthenticated
from portal.domain.gateway_addresses import GatewayAddress
from portal.domain.principals import Principal
from portal.services.access.principals import principal_for_user
from portal.services.oauth_server import families
from portal.services.oauth_server.resources import resolve
from portal.store.models import now


def is_access_token(text: str) -> bool:
    """Return whether a bearer token has the prefix of the portal's access tokens."""
    return text.startswith(families.ACCESS_PREFIX)


def principal_of(
    session: Session, token: str, resource: GatewayAddress, *, address: str | None
) -> Principal | None:
    """Return the user whose app sends `token` to `resource`, or None.

    The result is None if the token is unknown, expired, or issued for another resource. `address`
    is the client's address, for the rule of internal servers. Whether the user may use the resource
    is not checked here.
    """
    if not is_access_token(token):
        return None
    found = families.find(session, token, families.ACCESS)
    if found is None or not families.is_live(session, *found, now()):
        return None
    grant = found[0]
    named = resolve(session, resource)
    if named is None or (named.server_id, named.toolset_id) != (grant.server_id, grant.toolset_id):
        return None
    try:
        person = principal_for_user(session, grant.user_id, address)
    except Unauthenticated:
        return None
    return replace(person, app_id=grant.client_id)
