"""Revoking tokens upstream when a server or user is deleted: recorded first, done by the worker.

The data for a request is sealed in its own row, in the transaction that deletes the tokens, so that
only deleted tokens are revoked. Each revocation is tried once, whatever the result; one not tried
within a day is dropped.
"""

import logging
import time
from collections import Counter
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from portal.domain.errors import PortalError
from portal.domain.oauth import Client
from portal.services.oauth_client import flows
from portal.services.oauth_client.discovery import (
    authorization_of,
    identity_of,
    read_back,
    remembered,
    written,
)
from portal.services.oauth_client.registration import known_client
from portal.services.runtime import runtime_of
from portal.services.secrets import token_store
from portal.services.secrets.token_store import KIND
from portal.store.models import Server, UserCredential
from portal.store.oauth_tables import OAuthFlow, ServerAuthorization

log = logging.getLogger("portal.oauth")
FLOW = "revoke"
_KEPT = timedelta(days=1)
_MOST_SECONDS = 10.0


def note_for_revocation(session: Session, which: ColumnElement[bool]) -> int:
    """Record tokens of matching credentials for revocation; return how many can be revoked."""
    noted = 0
    for credential in session.scalars(
        select(UserCredential).where(UserCredential.kind == KIND, which)
    ).all():
        contents = _request(session, credential)
        if contents is not None:
            flows.begin_flow(session, FLOW, contents, browser=None, lifetime=_KEPT)
            noted += 1
    return noted


def ask_due(session: Session) -> Counter[tuple[str, bool]]:
    """Send due revocation requests for at most ten seconds. Commits.

    Returns counts by server id and whether the upstream confirmed them.
    """
    told = Counter[tuple[str, bool]]()
    until = time.monotonic() + _MOST_SECONDS
    while time.monotonic() < until:
        waiting = select(OAuthFlow.flow_id).where(
            OAuthFlow.kind == FLOW, OAuthFlow.status == "pending"
        )
        flow_id = session.scalar(waiting.order_by(OAuthFlow.expires_at).limit(1))
        if flow_id is None:
            break
        flow = flows.take_flow_by_id(session, flow_id, kinds=(FLOW,), browser=None)
        session.commit()  # taken once across all processes; holds no lock during the request
        if flow is None or not flow.contents:
            continue
        confirmed = _asked(session, flow.contents)
        told[flow.contents["server_id"], confirmed] += 1
        flows.finish_flow(
            session, flow.flow_id, {"state": "revoked" if confirmed else "unconfirmed"}
        )
        session.commit()
    return told


def _request(session: Session, credential: UserCredential) -> dict[str, Any] | None:
    """Return the data for a request to revoke a credential's tokens; None if not possible."""
    row = session.get(Server, credential.server_id)
    # Only a discovery result contains a revocation endpoint, and discovery now would make requests.
    known = session.get(ServerAuthorization, credential.server_id)
    if row is None or remembered(known) is None:
        return None
    held = token_store.opened_tokens(
        session, token_store.place_of(row, credential.user_id), credential.sealed
    )
    try:
        found = authorization_of(session, row)
        client = known_client(session, row, found.server, held.client_id) if held else None
    except PortalError:
        return None
    ours = client is not None and credential.issuer == identity_of(found.server)
    if held is None or client is None or not ours or not found.server.revocation_endpoint:
        return None
    tokens = {"refresh_token": held.refresh_token, "access_token": held.access_token}
    return {
        "server_id": row.server_id,
        "found": written(found),
        "client": asdict(client),
        "tokens": tokens,
    }


def _asked(session: Session, contents: Any) -> bool:
    server = read_back(contents["found"]).server
    client = Client(**contents["client"])
    try:
        for hint, token in contents["tokens"].items():
            if token:
                runtime_of(session).oauth.revoke(server, client, token, hint=hint)
    except PortalError as error:
        log.warning(
            "a token of server %s was not revoked upstream: %s",
            contents["server_id"],
            type(error).__name__,
        )
        return False
    return True
