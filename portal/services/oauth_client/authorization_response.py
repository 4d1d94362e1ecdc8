"""Authorization responses: verifying them, exchanging the code, and storing the tokens."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from portal.domain.oauth import Client, Discovery, TokenSet, read_token_set
from portal.domain.principals import Principal
from portal.domain.token_answers import broken_rule, claimed_account
from portal.services import audit
from portal.services.oauth_client import service_tokens
from portal.services.oauth_client.discovery import identity_of
from portal.services.oauth_client.registration import known_client, redirect_uri
from portal.services.runtime import runtime_of
from portal.services.secrets import token_store
from portal.services.secrets.token_store import KIND
from portal.store.database import release
from portal.store.models import Server, UserCredential, now

_ERROR_WORDS = 64


def refused(error: str) -> dict[str, Any]:
    """Return the outcome for an authorization server's error; keeps only a well-formed code."""
    if error == "access_denied":
        return {"state": "declined"}
    word = error[:_ERROR_WORDS]
    return {
        "state": "provider_error",
        "error": word if word.replace("_", "").isalnum() and word.isascii() else "",
    }


def is_from(found: Discovery, iss: str | None) -> bool:
    """Return whether the response came from the expected issuer (RFC 9207, 2.4).

    `iss` must match exactly if present, and must be present if the server announces it. If an Admin
    entered the URLs, there is no issuer to compare with.
    """
    if not found.server.issuer:
        return True
    return iss == found.server.issuer if iss is not None else not found.server.sends_iss


def failed_outcome(
    row: Server, found: Discovery, begun: Mapping[str, Any], answer: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the outcome if the response has no code, or the server has changed; else None."""
    server = found.server
    if (identity_of(server), server.token_endpoint, row.incarnation) != (
        begun["issuer"],
        begun["token_endpoint"],
        begun["incarnation"],
    ):
        return {"state": "changed"}
    if not is_from(found, answer.get("iss")):
        return {"state": "other_issuer"}  # its response is ignored
    if answer.get("error"):
        return refused(answer["error"])
    return None if answer.get("code") else refused("invalid_response")


def exchanged(
    session: Session,
    principal: Principal,
    row: Server,
    found: Discovery,
    begun: Mapping[str, Any],
    code: str,
) -> dict[str, Any]:
    """Exchange the code for tokens, and store them if the server's rules accept them."""
    client = known_client(session, row, found.server, begun["client_id"])
    if client is None:
        return {"state": "changed"}
    server_id = row.server_id
    version = row.version
    answer, tokens = tokens_for(session, found, client, begun, code)
    if tokens is None:
        return refused("invalid_token")
    now_there = session.get(Server, server_id, populate_existing=True)
    if now_there is None or (now_there.incarnation, now_there.version) != (
        begun["incarnation"],
        version,
    ):
        return {"state": "changed"}  # a token for one host is never sent to another
    if (rule := broken_rule(now_there.token_validation, answer)) is not None:
        audit.record(session, principal, "connection refused", "server", server_id, rule=rule)
        return {"state": "refused_by_rules", "rule": rule}
    return _kept(
        session,
        principal,
        now_there,
        found,
        begun,
        client.client_id,
        tokens,
        claimed_account(answer),
    )


def tokens_for(
    session: Session, found: Discovery, client: Client, begun: Mapping[str, Any], code: str
) -> tuple[dict[str, Any], TokenSet | None]:
    """Return the token endpoint's response for a code, and its tokens, if any.

    Ends the transaction. Raises what `ask_for_token` raises.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri(session),
        "code_verifier": begun["verifier"],
        **({"resource": found.resource} if found.resource else {}),
    }
    release(session)
    answer = runtime_of(session).oauth.ask_for_token(found.server, client, form)
    try:
        return answer, read_token_set(answer, now(), begun["scopes"])
    except ValueError:
        return answer, None


def _kept(
    session: Session,
    principal: Principal,
    row: Server,
    found: Discovery,
    begun: Mapping[str, Any],
    client_id: str,
    tokens: TokenSet,
    account: str | None,
) -> dict[str, Any]:
    assert principal.user_id is not None
    before = session.get(UserCredential, (principal.user_id, row.server_id, KIND))
    old_account = before.account if before else None
    issuer = identity_of(found.server)
    token_store.keep(
        session, row, principal.user_id, tokens, issuer=issuer, client_id=client_id, account=account
    )
    service_tokens.forget_exchanged(session, row.server_id, principal.user_id)
    audit.record(
        session,
        principal,
        "connected",
        "server",
        row.server_id,
        name=row.server_name,
        issuer=issuer,
        scopes=list(tokens.scopes),
    )
    return {
        "state": "connected",
        "account": account,
        "scopes": list(tokens.scopes),
        "renews": bool(tokens.refresh_token),
        "missing": [scope for scope in begun["scopes"] if scope not in tokens.scopes],
        "expires_at": tokens.expires_at.isoformat() if tokens.expires_at else None,
        "old_account": old_account if old_account and account and old_account != account else None,
    }
