"""Creation of the application and its database from the settings."""

from pathlib import Path
from typing import TYPE_CHECKING

from argon2 import PasswordHasher
from sqlalchemy.engine import make_url

from portal import resources
from portal.domain.emails import listed_domain
from portal.domain.oauth import Client
from portal.domain.principals import Role
from portal.domain.servers import STDIO_COMMANDS
from portal.domain.sign_in import SignInProvider
from portal.domain.upstream import OutboundPolicy
from portal.services.runtime import Runtime, runtime_of
from portal.settings import BadSettings, ProviderSettings, Settings, parse_key_ring
from portal.store.database import Database
from portal.store.journal import FileJournal
from portal.store.vault import Vault
from portal.upstream.mcp_client import UpstreamClient
from portal.upstream.oauth_client import OAuthClient
from portal.upstream.openid import OpenIdClient
from portal.upstream.sandbox import Sandbox

if TYPE_CHECKING:
    from flask import Flask

    from portal.gateway.app import Gateway

MOST_BYTES = 2 * 1024 * 1024


def open_database(settings: Settings) -> Database:
    """Open the database with the dependencies of use cases. Raises `BadSettings`."""
    commands = frozenset(settings.stdio_commands)
    outbound = OutboundPolicy(settings.private_upstreams)
    sandbox = sandbox_of(settings)
    runtime = Runtime(
        vault=Vault(parse_key_ring(settings.encryption_keys.get_secret_value())),
        oauth=OAuthClient(outbound),
        openid=OpenIdClient(),
        providers={provider.name: _provider(provider) for provider in settings.sign_in_providers},
        mcp=UpstreamClient(
            outbound, stdio_enabled=settings.enable_stdio, stdio_commands=commands, sandbox=sandbox
        ),
        hasher=(
            PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
            if settings.cheap_hashing
            else PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        ),
        public_url=settings.public_url,
        gateway_url=settings.gateway_url or settings.public_url,
        stdio_enabled=settings.enable_stdio,
        stdio_commands=STDIO_COMMANDS | commands,
        sandbox=sandbox,
        write_only_globals=settings.write_only_globals,
        session_idle_minutes=settings.session_idle_minutes,
        session_max_hours=settings.session_max_hours,
        call_log_days=settings.call_log_days,
    )
    return Database(
        settings.database_url, {"runtime": runtime, "journal": journal_of(settings, runtime.vault)}
    )


def journal_of(settings: Settings, vault: Vault | None = None) -> FileJournal | None:
    """Return the revocation journal of an SQLite database, or None for PostgreSQL.

    PostgreSQL has the journal in a separate schema.
    """
    file = make_url(settings.database_url).database if settings.embedded else None
    vault = vault or Vault(parse_key_ring(settings.encryption_keys.get_secret_value()))
    if not file:
        return None
    return FileJournal(Path(f"{file}.revocations"), vault.keys_for("revocation journal"))


def sandbox_of(settings: Settings) -> Sandbox:
    """Return the sandbox for commands, without access to the portal's data and config file."""
    data = None
    if settings.embedded:
        data = Path(make_url(settings.database_url).database or "portal.db").parent
    return Sandbox(
        user=settings.stdio_user,
        homes=settings.stdio_homes or (data / "stdio" if data else None),
        readable=settings.stdio_paths,
        hidden=[path for path in (data, settings.config) if path is not None],
        variables=settings.stdio_variables,
    )


def _provider(given: ProviderSettings) -> SignInProvider:
    return SignInProvider(
        name=given.name,
        label=given.label or given.name,
        issuer=given.issuer,
        client=Client(given.client_id, given.client_secret.get_secret_value()),
        scopes=tuple(given.scopes),
        email_domains=tuple(_domain(domain) for domain in given.email_domains),
        groups_claim=given.groups_claim,
        roles={group: Role(role) for group, role in given.roles.items()},
        teams=dict(given.teams),
        default_role=Role(given.default_role) if given.default_role else None,
        link_by_email=given.link_by_email,
    )


def _domain(typed: str) -> str:
    domain = listed_domain(typed)
    if not domain:
        raise BadSettings(
            "PORTAL_SIGN_IN_PROVIDERS: email_domains must be domains in letters of one script, not"
            f" {typed!r:.100}"
        )
    return domain


def create_app(settings: Settings, *, database: Database | None = None) -> "Flask":
    """Return the web application. The schema of its database must be up to date."""
    # Imported here, so that commands and the worker start faster without them.
    from flask import Flask

    from portal import web

    app = Flask(
        "portal",
        template_folder=str(resources.folder("templates")),
        static_folder=str(resources.folder("static")),
        static_url_path="/static",
    )
    app.config.update(
        SECRET_KEY=settings.secret_key.get_secret_value(), MAX_CONTENT_LENGTH=MOST_BYTES
    )
    app.extensions["settings"] = settings
    app.extensions["database"] = database or open_database(settings)
    web.register(app, settings, app.extensions["database"])
    return app


def create_gateway(settings: Settings, database: Database) -> "Gateway":
    """Return the ASGI application for MCP clients; the database must be at head."""
    from portal.gateway.app import Gateway  # imported here: only its own process needs it
    from portal.gateway.calls import CallLog
    from portal.gateway.identity import Reception
    from portal.gateway.probes import Probes
    from portal.gateway.relay import Upstreams
    from portal.gateway.sessions import Sessions
    from portal.store import schema
    from portal.upstream.answering import Answering
    from portal.upstream.relay import Relay

    with database.session() as session:
        mcp = runtime_of(session).mcp
    vault = Vault(parse_key_ring(settings.encryption_keys.get_secret_value()))
    return Gateway(
        settings,
        Reception(database, settings.trusted_proxies),
        Upstreams(Relay(OutboundPolicy(settings.private_upstreams)), Answering(mcp)),
        Sessions(vault.keys_for("gateway session")),
        CallLog(database, is_strict=settings.call_log == "strict"),
        Probes(lambda: schema.fault_of(database), shows_metrics=settings.metrics),
    )
