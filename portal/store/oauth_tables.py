"""The OAuth tables: pending redirects, discovery results, clients on both sides, consents, tokens.

As in `models.py`, secrets are stored only in columns of type `Sealed`; ids are strings, times are
UTC.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, ForeignKeyConstraint, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from portal.store.models import Base, Sealed, new_id, now

_ID = String(128)
STALE = "stale"
"""Marks `ServerAuthorization.found` as limiting where secrets may go, but needing rediscovery."""


class OAuthFlow(Base):
    """A pending or ended browser redirect: Connect, the broker for an MCP client, sign-in, or BYOK.

    `state_hash` is the SHA-256 of the state that the other side returns, `browser_hash` that of the
    cookie that binds the flow to one browser. `status` is pending, taken or over; `outcome` is the
    result, for the result page.
    """

    __tablename__ = "oauth_flows"

    flow_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    state_hash: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    browser_hash: Mapped[str | None] = mapped_column(String(64))
    user_id: Mapped[str | None] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), index=True
    )
    server_id: Mapped[str | None] = mapped_column(_ID, index=True)
    sealed: Mapped[bytes] = mapped_column(Sealed)
    status: Mapped[str] = mapped_column(String(16), default="pending")
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class ServerAuthorization(Base):
    """The discovery result of an OAuth server: authorization server, resource name, and scopes."""

    __tablename__ = "server_authorizations"

    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True
    )
    issuer: Mapped[str] = mapped_column(Text)
    found: Mapped[dict[str, Any]] = mapped_column(JSON)
    discovered_at: Mapped[datetime] = mapped_column(default=now)


class OAuthClientRegistration(Base):
    """The portal's registration (RFC 7591) at a server's authorization server, by issuer."""

    __tablename__ = "oauth_client_registrations"

    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True
    )
    issuer: Mapped[str] = mapped_column(String(512), primary_key=True)
    client_id: Mapped[str] = mapped_column(Text)
    sealed: Mapped[bytes | None] = mapped_column(Sealed)
    redirect_uri: Mapped[str] = mapped_column(Text)
    registered_at: Mapped[datetime] = mapped_column(default=now)


class McpClient(Base):
    """An MCP client that registered at the portal's broker. Its metadata is an unverified claim.

    `fingerprint` is the SHA-256 of the server and the metadata, so that equal registrations share a
    row; None if the upstream issued the id. `seen_at` is when the client last registered or started
    a sign-in.
    """

    __tablename__ = "mcp_clients"

    registration_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    server_id: Mapped[str | None] = mapped_column(_ID, index=True)
    client_id: Mapped[str] = mapped_column(String(512), index=True)
    client_name: Mapped[str | None] = mapped_column(String(80))
    redirect_uris: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_used_at: Mapped[datetime | None]
    fingerprint: Mapped[str | None] = mapped_column(String(64), unique=True, index=True)
    seen_at: Mapped[datetime | None]


class Consent(Base):
    """A user's consent for an MCP client to use a server through the portal, with its redirect URI.

    `client_hash` is the SHA-256 of the client's id and the redirect URI.
    """

    __tablename__ = "consents"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True
    )
    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True
    )
    client_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    client_id: Mapped[str] = mapped_column(Text)
    redirect_uri: Mapped[str] = mapped_column(Text)
    client_name: Mapped[str | None] = mapped_column(String(80))
    scopes: Mapped[list[str]] = mapped_column(default=list)
    given_at: Mapped[datetime] = mapped_column(default=now)


class RefreshGrant(Base):
    """An upstream's refresh token issued to an MCP client; ends with the user's consent.

    `refresh_hash` is the SHA-256 of the server's id and the token. `issuer` is the token's issuer.
    `spent_at` is when the client exchanged it for another one.
    """

    __tablename__ = "refresh_grants"
    __table_args__ = (
        ForeignKeyConstraint(
            ["user_id", "server_id", "client_hash"],
            ["consents.user_id", "consents.server_id", "consents.client_hash"],
            ondelete="CASCADE",
        ),
        Index("ix_refresh_grants_consent", "user_id", "server_id", "client_hash"),
    )

    refresh_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(_ID)
    server_id: Mapped[str] = mapped_column(_ID)
    client_hash: Mapped[str] = mapped_column(String(64))
    client_id: Mapped[str] = mapped_column(Text)
    issuer: Mapped[str] = mapped_column(Text)
    given_at: Mapped[datetime] = mapped_column(default=now)
    spent_at: Mapped[datetime | None]


class AppGrant(Base):
    """Consent of a user for an MCP client: one server, one toolset, or, with neither, all servers.

    Each sign-in of a client creates one. Its tokens are a family and end together. `client_hash` is
    the SHA-256 of the client ID and the redirect URI.
    """

    __tablename__ = "app_grants"

    grant_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), index=True
    )
    server_id: Mapped[str | None] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), index=True
    )
    toolset_id: Mapped[str | None] = mapped_column(
        ForeignKey("toolsets.toolset_id", ondelete="CASCADE"), index=True
    )
    client_id: Mapped[str] = mapped_column(Text)
    client_hash: Mapped[str] = mapped_column(String(64))
    client_name: Mapped[str | None] = mapped_column(String(80))
    redirect_uri: Mapped[str] = mapped_column(Text)
    given_at: Mapped[datetime] = mapped_column(default=now)
    last_used_at: Mapped[datetime | None]


class AppToken(Base):
    """A token of the portal for an MCP client; it ends with its grant.

    `bearer_hash` is the SHA-256 of the token, and `kind` is access or refresh. `spent_at` is the
    time when a refresh token was used.
    """

    __tablename__ = "app_tokens"

    bearer_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    grant_id: Mapped[str] = mapped_column(
        ForeignKey("app_grants.grant_id", ondelete="CASCADE"), index=True
    )
    kind: Mapped[str] = mapped_column(String(16))
    issued_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    spent_at: Mapped[datetime | None]


class TemporaryServer(Base):
    """A definition under test, at most 300 s old; never in the catalog."""

    __tablename__ = "temporary_servers"

    server_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    incarnation: Mapped[str] = mapped_column(_ID, default=new_id)
    sealed: Mapped[bytes] = mapped_column(Sealed)
    created_by: Mapped[str | None] = mapped_column(String(320))
    expires_at: Mapped[datetime] = mapped_column(index=True)


class SharedToken(Base):
    """A token that the portal requested itself: client credentials, or an exchange (RFC 8693).

    No other is requested before `wait_until`; `early` counts consecutive tokens that were expired
    on arrival.
    """

    __tablename__ = "shared_tokens"

    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True
    )
    subject: Mapped[str] = mapped_column(String(64), primary_key=True, default="")
    sealed: Mapped[bytes] = mapped_column(Sealed)
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    early: Mapped[int | None]
    wait_until: Mapped[datetime | None]
