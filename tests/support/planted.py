"""A secret of every kind there is, each stored and read by the portal's own use cases."""

import base64
import json
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.oauth import TokenSet
from portal.domain.principals import Principal
from portal.domain.servers import Transport
from portal.services.access import sessions
from portal.services.access.principals import principal_for_user
from portal.services.catalog import imports
from portal.services.credentials import self_service
from portal.services.drafts import temporary_servers
from portal.services.oauth_client import flows, held_definitions, registration, service_tokens
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings, server_definition, token_store, user_values
from portal.services.servers import queries
from portal.services.submissions import change_requests
from portal.store.models import Proposal, Server, UserCredential
from tests.support.factories import make_server
from tests.support.oauth.recording import RecordingServer

COOKIE = "a-cookie-of-the-tests"
IMPORT = json.dumps(
    {"mcpServers": {"drafted": {"url": "http://127.0.0.1:9/mcp?api_key=SECRET-draft"}}}
)


def person(session: Session, name: str) -> Principal:
    """Somebody as they are now."""
    return principal_for_user(session, name, "127.0.0.1")


def row_of(session: Session, server_id: str) -> Server:
    """A server with all its parts."""
    return session.scalars(
        select(Server).where(Server.server_id == server_id).options(*queries.PARTS)
    ).one()


def plant(session: Session, echo: str, provider: RecordingServer) -> None:
    """Store one secret of each kind, or more. Commits."""
    header = {"X-Corp": "SECRET-header ${REGION} ${CORP_TOKEN}"}
    variables = [
        {"name": "REGION", "value": "SECRET-region", "scope": "global"},
        {"name": "CORP_TOKEN", "scope": "user"},
    ]
    make_server(
        session,
        "echo",
        url=f"{echo}?token=SECRET-query",
        allow_all_keys=True,
        static_headers=header,
        env_vars=variables,
        auth_type="api_key",
        credentials={"auth_value": "SECRET-credential"},
    )
    make_server(session, "own", url=echo, allow_all_keys=True, auth_type="api_key", is_byok=True)
    make_server(session, "signs", url=provider.url, auth_type="oauth2", allow_all_keys=True)
    make_server(
        session,
        "machine",
        url=provider.url,
        auth_type="oauth2",
        oauth2_flow="client_credentials",
        allow_all_keys=True,
        token_url=provider.endpoint("token"),
        credentials={"client_id": "typed", "client_secret": "SECRET-client"},
    )
    mel = person(session, "mel")
    ada = person(session, "ada")
    self_service.save_variables(session, mel, "id-echo", {"CORP_TOKEN": "SECRET-value"})
    self_service.save_key(session, mel, "id-own", "SECRET-key")
    signs = row_of(session, "id-signs")
    token_store.keep(
        session, signs, "mel", TokenSet("SECRET-at", "SECRET-rt", None), issuer=provider.issuer
    )
    registered = {
        "client_secret": "SECRET-registered",
        "auth_method": "client_secret_basic",
        "expires_at": 0,
    }
    found = {
        "issuer": provider.issuer,
        "client_id": "c-1",
        "redirect_uri": "http://127.0.0.1:8000/oauth/callback",
    }
    registration.keep_registration(session, signs, {**found, "secret": registered})
    row_of(session, "id-echo").submitted_by = "mel"
    change_requests.propose(
        session,
        ada,
        row_of(session, "id-own"),
        {"static_headers": {"X-New": "SECRET-proposed"}},
        "mel",
    )
    imports.keep_document(session, ada, IMPORT)
    flows.begin_flow(
        session,
        "connect",
        {"verifier": "SECRET-verifier"},
        browser="b",
        user_id="mel",
        server_id="id-signs",
        state="state-of-the-tests",
    )
    temporary_servers.hold_server(
        session,
        ada,
        {
            "server_id": "held",
            "server_name": "held",
            "transport": Transport.HTTP,
            "url": "http://127.0.0.1:9/SECRET-held",
        },
    )
    hint = base64.b64encode(
        runtime_of(session).vault.seal("SECRET-id-token", bindings.of_id_token("mel"))
    ).decode()
    sessions.save_session(session, COOKIE, {"_user_id": "mel", "id_token": hint}, "mel", None)
    session.commit()
    service_tokens.machine_token(session, row_of(session, "id-machine"))


def opened(session: Session) -> dict[str, Any]:
    """Everything that `plant` stored, as the portal itself reads it to send it upstream."""
    return lasting(session) | passing(session)


def lasting(session: Session) -> dict[str, Any]:
    """What stays until somebody removes it."""
    echo, own, signs, machine = (
        row_of(session, f"id-{name}") for name in ("echo", "own", "signs", "machine")
    )
    definition = server_definition.opened(session, echo, credentials=True)
    tokens = session.get(UserCredential, ("mel", "id-signs", "oauth2"))
    proposal = session.get(Proposal, "id-own")
    assert tokens is not None
    assert proposal is not None
    return {
        "url": definition.urls["url"],
        "header": definition.static_headers,
        "credential": definition.credentials,
        "global": definition.globals,
        "value": user_values.opened_values(session, echo, "mel"),
        "key": user_values.opened_key(session, own, "mel"),
        "tokens": token_store.opened_tokens(
            session, token_store.place_of(signs, "mel"), tokens.sealed
        ),
        "registration": registration.registration_of(session, signs),
        "machine": service_tokens.machine_token(session, machine),
        "proposal": change_requests.proposed_fields(session, own, proposal),
        "draft": imports.plan_import(session, person(session, "ada")),
    }


def passing(session: Session) -> dict[str, Any]:
    """What belongs to a browser or ends within minutes."""
    flow = flows.find_flow(session, "state-of-the-tests", kind="connect")
    loaded = sessions.load_session(session, COOKIE)
    assert flow is not None
    assert loaded is not None
    hint = base64.b64decode(loaded.data["id_token"])
    return {
        "flow": flow.contents, "temporary": held_definitions.contents_of(session, "held"),
        "hint": runtime_of(session).vault.open(hint, bindings.of_id_token("mel")),
    }  # fmt: skip
