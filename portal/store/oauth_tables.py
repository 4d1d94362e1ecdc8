"""The tables of OAuth: redirects under way, what discovery found, clients on both sides, consents
and tokens.

As in `models.py`: what is secret stands only in columns of type `Sealed`; ids are strings, times
are UTC.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, ForeignKeyConstraint, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from portal.store.models import Base, Sealed, new_id, now

_ID = String(128)
STALE = "stale"
"""Stands in `ServerAuthorization.found` where it only says where stored secrets may go, and has to
be found anew."""


class OAuthFlow(Base):
    """A browser redirect under way, or just ended: Connect, the broker for an MCP client, a
    sign-in, a BYOK code.

    `state_hash` is the SHA-256 of what the other side sends back, `browser_hash` that of the cookie
    which binds the flow to one browser. `status` is pending, taken or over; what happened stands in
    `outcome`, for the result page.
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
    """What discovery found for an OAuth server: its authorization server, the resource's name, the
    scopes asked for."""

    __tablename__ = "server_authorizations"

    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True
    )
    issuer: Mapped[str] = mapped_column(Text)
    found: Mapped[dict[str, Any]] = mapped_column(JSON)
    discovered_at: Mapped[datetime] = mapped_column(default=now)


class OAuthClientRegistration(Base):
    """The portal as a client that registered itself (RFC 7591) at a server's authorization server,
    by its issuer."""

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
    """An MCP client that registered itself at the portal's broker. All it says of itself is a
    claim.

    `fingerprint` is the SHA-256 of the server and the metadata, so that equal registrations are
    one; None where the upstream gave the id. `seen_at` is when the client last registered or began
    to authorize.
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
    """A person allowed an MCP client to reach a server by way of the portal, and to be sent back
    there.

    `client_hash` is the SHA-256 of the client's id and the redirect URI together.
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
    """A refresh token of an upstream that an MCP client got by way of the portal; it ends with the
    person's consent.

    `refresh_hash` is the SHA-256 of the server's id and the token. `issuer` is what the token
    belongs to. `spent_at` is when the client got another one for it.
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
    """A person let an MCP client use the gateway in their name: one server, one toolset, or, with
    neither, every server of theirs.

    Each sign-in of a client makes one, and all tokens that come of it are its family: they end
    together. `client_hash` is the SHA-256 of the client's id and the redirect URI together.
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
    """A token of the portal's own that an MCP client holds; it ends with the grant that it belongs
    to.

    `bearer_hash` is the SHA-256 of the token, `kind` is access or refresh. `spent_at` is when the
    client got another refresh token for it.
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
    """An access token that the portal got by itself: client credentials, or an exchange for one
    person (RFC 8693).

    No other is asked for before `wait_until`; `early` counts those in a row that had expired at
    once.
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
