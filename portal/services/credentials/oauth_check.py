"""The OAuth check: a server's sign-in and the portal's own metadata, step by step."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from sqlalchemy.orm import Session

from portal.authorization import Action
from portal.domain.discovery import DiscoveryStep, StepResult, Walk, is_secure
from portal.domain.errors import UpstreamFailure
from portal.domain.oauth import AuthorizationServer
from portal.domain.oauth_advice import Registered, judge_abilities, judge_clients, judge_resource
from portal.domain.oauth_metadata import fault_of_metadata, words_of
from portal.domain.oauth_origins import foreign_address, split_at
from portal.domain.principals import Principal
from portal.domain.public_address import Sighting, judge_address
from portal.domain.servers import AuthType, OAuthGrantType, origin_of
from portal.services.instance_settings import load_preferences
from portal.services.runtime import Runtime, runtime_of
from portal.services.secrets.server_definition import opened
from portal.services.servers import queries
from portal.services.servers.queries import prefix_of
from portal.store.database import release
from portal.store.models import Server

_LET_THROUGH = "Configure the proxy in front of the portal to forward /.well-known/ to it."


@dataclass(frozen=True)
class Section:
    """One part of the OAuth check."""

    name: str
    about: str
    steps: tuple[DiscoveryStep, ...]


@dataclass(frozen=True)
class Report:
    """The result of the check; `callback` is the redirect URI to register at the provider."""

    server_id: str
    callback: str
    sections: tuple[Section, ...]
    problems: int
    warnings: int
    first: DiscoveryStep | None


@dataclass(frozen=True)
class _Patient:
    """What the check needs to know of a server, read before the transaction ends."""

    server_id: str
    prefix: str
    urls: Mapping[str, str]
    registered: Registered
    is_oauth: bool
    is_machine: bool

    @property
    def typed(self) -> AuthorizationServer | None:
        """The authorization server that an Admin entered, if its URLs are sufficient."""
        where = self.urls.get("authorization_url", "")
        token = self.urls.get("token_url", "")
        if not token or not (where or self.is_machine):
            return None
        return AuthorizationServer("", where, token, self.urls.get("registration_url", ""))


def callback_url(session: Session, principal: Principal, server_id: str) -> str:
    """Return the redirect URI to register at a server's provider."""
    queries.find_server(session, principal, server_id, Action.SERVER_PROBE)
    return _callback(runtime_of(session))


def check_oauth(session: Session, principal: Principal, server_id: str, seen: Sighting) -> Report:
    """Check a server's authorization server and the portal's own metadata, without credentials.

    `seen` is how the caller's request reached the portal. Upstream errors are reported, never
    raised.
    """
    row = queries.find_server(session, principal, server_id, Action.SERVER_PROBE).row
    runtime = runtime_of(session)
    patient = _patient(session, row)
    trusted = (*seen.operator_proxies, *load_preferences(session).trusted_proxies)
    release(session)
    walk = _walk(runtime, patient.urls.get("url", ""))
    ours = judge_address(runtime.public_url, seen, trusted)
    sections = (
        Section(
            "The server",
            "Requests without a token, as when a user connects in the portal.",
            _of_server(walk, patient),
        ),
        Section(
            "Other clients",
            "Signing in at the server directly, without the portal.",
            _of_clients(walk, patient),
        ),
        Section("The portal's address", "Where providers send users back to.", ours),
        Section(
            "The portal's documents",
            "As MCP clients read them, at the public URL.",
            _of_portal(runtime, patient),
        ),
    )
    steps = [step for section in sections for step in section.steps]
    problems = [step for step in steps if step.verdict is StepResult.FAIL]
    warnings = [step for step in steps if step.verdict is StepResult.WARN]
    shown = tuple(section for section in sections if section.steps)
    return Report(
        patient.server_id,
        _callback(runtime),
        shown,
        len(problems),
        len(warnings),
        next(iter(problems or warnings), None),
    )


def _callback(runtime: Runtime) -> str:
    return f"{runtime.public_url}/oauth/callback"


def _patient(session: Session, row: Server) -> _Patient:
    public_url = runtime_of(session).public_url
    stored = {secret.name for secret in row.secrets if secret.field == "credentials"}
    return _Patient(
        server_id=row.server_id,
        prefix=prefix_of(row),
        urls=opened(session, row).urls,
        registered=Registered(
            "client_id" in stored,
            "client_secret" in stored,
            f"{public_url}/.well-known/oauth-client",
            public_url.startswith("https:"),
        ),
        is_oauth=row.auth_type in (AuthType.OAUTH2, AuthType.OAUTH2_TOKEN_EXCHANGE),
        is_machine=row.oauth2_flow == OAuthGrantType.CLIENT_CREDENTIALS
        or row.auth_type == AuthType.OAUTH2_TOKEN_EXCHANGE,
    )


def _walk(runtime: Runtime, url: str) -> Walk:
    if not url:
        said = "The server has no URL, so its sign-in cannot be checked."
        return Walk((DiscoveryStep("Ask the MCP server without a token", StepResult.WARN, said),))
    try:
        return runtime.oauth.walk(url)
    except UpstreamFailure as failure:
        remedy = "Check that the server is running, and run the check again."
        return Walk(
            (
                DiscoveryStep(
                    "Ask the MCP server without a token",
                    StepResult.FAIL,
                    failure.message,
                    remedy=remedy,
                ),
            )
        )


def _of_server(walk: Walk, patient: _Patient) -> tuple[DiscoveryStep, ...]:
    steps = list(walk.steps)
    if not patient.is_oauth:
        said = "Its authentication is not set to OAuth, so users cannot connect in the portal."
        steps.insert(
            0,
            DiscoveryStep(
                "Read its configuration",
                StepResult.WARN,
                said,
                remedy="Choose OAuth under Edit, Sign-in.",
            ),
        )
    typed = patient.typed
    if typed is not None:
        steps = [_softened(step) for step in steps]
        steps.append(_typed_addresses(typed, walk.found.server if walk.found else None))
    elif walk.found is not None:
        foreign = foreign_address(patient.urls, walk.found.server)
        if foreign is not None:
            steps.append(_mixed(foreign, walk.found.server))
    server = typed or (walk.found.server if walk.found else None)
    if server is None:
        return tuple(steps)
    if not patient.registered.client_id:
        split = split_at(server, is_typed="registration_url" in patient.urls)
        if split is not None:
            steps.append(_split(server, split))
    if typed is not None and walk.found is not None:
        server = replace(walk.found.server, registration_endpoint=server.registration_endpoint)
    if patient.is_machine:
        return (*steps, _machine(patient.registered))
    judged = judge_abilities(server, patient.registered)
    if not patient.urls.get("url"):
        return (*steps, *judged)
    return (*steps, *judged, judge_resource(walk, patient.urls["url"]))


def _softened(step: DiscoveryStep) -> DiscoveryStep:
    """Downgrade a discovery error to a warning, if the portal does not depend on it."""
    return replace(step, verdict=StepResult.WARN) if step.verdict is StepResult.FAIL else step


def _typed_addresses(
    typed: AuthorizationServer, found: AuthorizationServer | None
) -> DiscoveryStep:
    title = "Use the addresses of the server's form"
    for name, address in (
        ("authorization", typed.authorization_endpoint),
        ("token", typed.token_endpoint),
    ):
        if address and not is_secure(address):
            return DiscoveryStep(
                title,
                StepResult.FAIL,
                f"The {name} URL is not https.",
                remedy="Correct it under Edit, Sign-in.",
            )
    if found is not None and typed.token_endpoint != found.token_endpoint:
        said = (
            "They override the discovered addresses, and the token URL differs from the"
            " discovered one."
        )
        remedy = (
            "If they are out of date, clear both URLs under Edit, Sign-in, to use the discovered"
            " ones."
        )
        return DiscoveryStep(title, StepResult.WARN, said, remedy=remedy)
    return DiscoveryStep(
        title, StepResult.OK, "They are complete, and override the discovered addresses."
    )


def _mixed(foreign: tuple[str, str, str], found: AuthorizationServer) -> DiscoveryStep:
    _, called, origin = foreign
    said = (
        f"The {called} is at {origin}, but the server's own sign-in provider is at {found.issuer}."
    )
    remedy = (
        "Under Edit, Sign-in, enter the authorization URL, the token URL and the registration"
        " URL, or none of them."
    )
    return DiscoveryStep(
        "Use the addresses of the server's form",
        StepResult.FAIL,
        f"{said} The portal sends nothing there.",
        remedy=remedy,
    )


def _split(found: AuthorizationServer, split: tuple[str, str, str]) -> DiscoveryStep:
    _, called, origin = split
    where = origin_of(found.registration_endpoint)
    said = (
        f"Clients register at {where}, but the {called} is at {origin}. The portal does not"
        " support that."
    )
    remedy = (
        "Register the portal at the provider manually, and enter its client ID under Edit, Sign-in."
    )
    return DiscoveryStep(
        "Compare where clients register and where they sign in",
        StepResult.FAIL,
        said,
        remedy=remedy,
    )


def _machine(registered: Registered) -> DiscoveryStep:
    title = "Find the portal's client credentials"
    if registered.client_id and registered.client_secret:
        return DiscoveryStep(
            title, StepResult.OK, "A client ID and secret are stored; no user has to sign in."
        )
    said = "The portal requests the token itself, but no client ID and secret are stored."
    return DiscoveryStep(title, StepResult.FAIL, said, remedy="Store both under Edit, Sign-in.")


def _of_clients(walk: Walk, patient: _Patient) -> tuple[DiscoveryStep, ...]:
    if walk.found is None or patient.is_machine or not patient.is_oauth:
        return ()
    return judge_clients(walk, patient.urls["url"])


def _of_portal(runtime: Runtime, patient: _Patient) -> tuple[DiscoveryStep, ...]:
    if patient.is_machine or not patient.is_oauth:
        return ()
    name = quote(patient.prefix, safe="")
    well_known = f"{runtime.public_url}/.well-known"
    asked = {
        "Read the server's resource metadata": f"{well_known}/oauth-protected-resource/{name}/mcp",
        "Read the portal as its authorization server": (
            f"{well_known}/oauth-authorization-server/{name}"
        ),
        "Read the portal's document as a client": f"{well_known}/oauth-client",
    }
    try:
        resource, server, client = runtime.oauth.read_own(asked)
    except UpstreamFailure as failure:
        return (
            _unreached(
                DiscoveryStep("Read the portal's documents", StepResult.FAIL, failure.message)
            ),
        )
    issuers = words_of(resource[1].get("authorization_servers"))
    return (
        _settled(
            resource,
            "" if resource[1].get("resource") and issuers else "It lists no authorization server.",
        ),
        _settled(server, _fault_of_server(server[1], issuers, runtime.public_url)),
        _settled(client, _fault_of_client(client[1], runtime)),
    )


def _settled(read: tuple[DiscoveryStep, Mapping[str, Any]], fault: str) -> DiscoveryStep:
    step, _ = read
    if step.status is None:
        return _unreached(step)
    if step.verdict is StepResult.FAIL:
        return replace(step, remedy=_LET_THROUGH)
    if fault:
        return replace(
            step,
            verdict=StepResult.FAIL,
            said=fault,
            remedy=f"The response does not come from the portal. {_LET_THROUGH}",
        )
    return replace(step, said="It is complete.")


def _unreached(step: DiscoveryStep) -> DiscoveryStep:
    # External clients may reach it even if the portal's own machine cannot.
    remedy = (
        "Check the host name, certificate and proxy of PORTAL_PUBLIC_URL. It may still work from"
        " outside."
    )
    return replace(step, verdict=StepResult.WARN, said=f"From here: {step.said}", remedy=remedy)


def _fault_of_server(document: Mapping[str, Any], issuers: list[str], public_url: str) -> str:
    issuer = document.get("issuer")
    if not isinstance(issuer, str) or (issuers and issuer not in issuers):
        return "Its issuer differs from the one in the resource metadata."
    ends = [value for name, value in document.items() if name.endswith("_endpoint")]
    if not all(isinstance(value, str) and value.startswith(public_url) for value in ends):
        return "It lists endpoints that are not below PORTAL_PUBLIC_URL."
    # The check of the address already reports http; do not repeat it for each endpoint.
    return fault_of_metadata(document, issuer)[0] if public_url.startswith("https:") else ""


def _fault_of_client(document: Mapping[str, Any], runtime: Runtime) -> str:
    if document.get("client_id") != f"{runtime.public_url}/.well-known/oauth-client":
        return "Its client_id differs from its address."
    if _callback(runtime) not in words_of(document.get("redirect_uris")):
        return "It does not list the portal's callback."
    return ""
