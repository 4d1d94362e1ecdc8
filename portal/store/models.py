"""The tables.

Secrets are stored only in columns of type `Sealed`, as ciphertext of the vault. Ids are strings,
times are UTC.
"""

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    func,
    select,
    type_coerce,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

Sealed = LargeBinary
_ID = String(128)


def new_id() -> str:
    """Return a new UUID4 as text."""
    return str(uuid.uuid4())


def now() -> datetime:
    """Return the current time, timezone-aware, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware UTC time; SQLite stores no time zone, so it is added when reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


DATABASE_TIME = type_coerce(func.now(), UtcDateTime())
"""The time of the database's host, in a statement, because the clocks of hosts differ."""


def time_of(session: Session) -> datetime:
    """Return the database's time now, not at the start of the transaction."""
    if session.get_bind().dialect.name != "postgresql":
        return now()
    return session.scalars(select(type_coerce(func.clock_timestamp(), UtcDateTime()))).one()


class Base(DeclarativeBase):
    """The base of all tables: names of constraints, types of columns."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own spelling
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        dict[str, str]: JSON,
        list[str]: JSON,
        list[dict[str, Any]]: JSON,
    }


class Server(Base):
    """An MCP server of the catalog. `incarnation` is new for every row, even for a reused id."""

    __tablename__ = "servers"

    server_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    incarnation: Mapped[str] = mapped_column(_ID, default=new_id)
    origin: Mapped[str] = mapped_column(String(16), default="database")
    version: Mapped[int] = mapped_column(default=1)
    sort_key: Mapped[str] = mapped_column(String(200))
    server_name: Mapped[str | None] = mapped_column(String(64), unique=True)
    alias: Mapped[str | None] = mapped_column(String(64), unique=True)
    description: Mapped[str | None] = mapped_column(Text)
    instructions: Mapped[str | None] = mapped_column(Text)
    transport: Mapped[str] = mapped_column(String(16))
    auth_type: Mapped[str | None] = mapped_column(String(32))
    address: Mapped[str | None] = mapped_column(Text)
    has_spec: Mapped[bool] = mapped_column(default=False)
    command: Mapped[str | None] = mapped_column(String(64))
    oauth2_flow: Mapped[str | None] = mapped_column(String(32))
    mcp_info: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    allowed_tools: Mapped[list[str]] = mapped_column(default=list)
    tool_name_to_display_name: Mapped[dict[str, str] | None] = mapped_column(
        JSON(none_as_null=True)
    )
    tool_name_to_description: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    extra_headers: Mapped[list[str]] = mapped_column(default=list)
    token_validation: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    allow_all_keys: Mapped[bool] = mapped_column(default=False)
    available_on_public_internet: Mapped[bool] = mapped_column(default=True)
    delegate_auth_to_upstream: Mapped[bool] = mapped_column(default=False)
    oauth_passthrough: Mapped[bool] = mapped_column(default=False)
    is_byok: Mapped[bool] = mapped_column(default=False)
    byok_description: Mapped[list[str]] = mapped_column(default=list)
    byok_api_key_help_url: Mapped[str | None] = mapped_column(Text)
    source_url: Mapped[str | None] = mapped_column(Text)
    timeout: Mapped[float | None]
    is_public: Mapped[bool] = mapped_column(default=False)
    approval_status: Mapped[str] = mapped_column(String(16), default="active")
    submitted_by: Mapped[str | None] = mapped_column(String(320), index=True)
    submitted_team_id: Mapped[str | None] = mapped_column(_ID)
    wishes: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    submitted_at: Mapped[datetime | None]
    reviewed_by: Mapped[str | None] = mapped_column(String(320))
    reviewed_at: Mapped[datetime | None]
    review_notes: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
    created_by: Mapped[str | None] = mapped_column(String(320))
    updated_at: Mapped[datetime] = mapped_column(default=now)
    updated_by: Mapped[str | None] = mapped_column(String(320))
    health_status: Mapped[str] = mapped_column(String(16), default="unknown")
    health_reason: Mapped[str] = mapped_column(String(24), default="never_checked")
    health_error: Mapped[str | None] = mapped_column(Text)
    health_checked_at: Mapped[datetime | None]
    health_latency_ms: Mapped[int | None]
    protocol_version: Mapped[str | None] = mapped_column(String(32))
    probe_due_at: Mapped[datetime] = mapped_column(default=now)
    probe_started_at: Mapped[datetime | None]
    probe_failures: Mapped[int] = mapped_column(default=0)

    variables: Mapped[list["ServerVariable"]] = relationship(
        order_by="ServerVariable.position", cascade="all, delete-orphan", passive_deletes=True
    )
    secrets: Mapped[list["ServerSecret"]] = relationship(
        order_by="ServerSecret.position", cascade="all, delete-orphan", passive_deletes=True
    )

    __table_args__ = (
        # The index contains the columns that decide whether a row is listed, so that skipping a row
        # does not fetch it.
        Index(
            "ix_servers_list",
            "approval_status",
            "sort_key",
            "server_id",
            "allow_all_keys",
            "available_on_public_internet",
            "is_public",
            "is_byok",
        ),
        Index("ix_servers_probe_due_at", "probe_due_at"),
    )


class ServerSecret(Base):
    """One sealed value of a server's definition: URL, arguments, header, env value or credential.

    `bound` is the value sealed for its destination, and is used if present; it is null in rows of
    older versions. `sealed` is for such a version running at the same time, or after a downgrade.
    `hint` is the part that may be shown without unsealing (the origin of a URL); `refers_to` are
    the `${NAME}`s in a header.
    """

    __tablename__ = "server_secrets"

    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True
    )
    field: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True, default="")
    position: Mapped[int] = mapped_column(default=0)
    sealed: Mapped[bytes] = mapped_column(Sealed)
    bound: Mapped[bytes | None] = mapped_column(Sealed)
    hint: Mapped[str | None] = mapped_column(Text)
    refers_to: Mapped[list[str]] = mapped_column(default=list)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class ServerVariable(Base):
    """A declared variable; the value of a global one is sealed twice, as in `ServerSecret`.

    `is_required`: each user must set it.
    """

    __tablename__ = "server_variables"

    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    scope: Mapped[str] = mapped_column(String(8))
    description: Mapped[str | None] = mapped_column(Text)
    sealed: Mapped[bytes | None] = mapped_column(Sealed)
    bound: Mapped[bytes | None] = mapped_column(Sealed)
    is_required: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (Index("ix_server_variables_required", "is_required", "server_id"),)


class User(Base):
    """A user."""

    __tablename__ = "users"

    user_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    email: Mapped[str | None] = mapped_column(String(320), unique=True)
    display_name: Mapped[str | None] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(32))
    password_hash: Mapped[str | None] = mapped_column(Text)
    must_change_password: Mapped[bool] = mapped_column(default=False)
    sso_issuer: Mapped[str | None] = mapped_column(Text)
    sso_subject: Mapped[str | None] = mapped_column(Text)
    is_active: Mapped[bool] = mapped_column(default=True)
    theme: Mapped[str] = mapped_column(String(8), default="auto")
    created_at: Mapped[datetime] = mapped_column(default=now)

    __table_args__ = (UniqueConstraint("sso_issuer", "sso_subject"),)


class Team(Base):
    """A group of users who share grants."""

    __tablename__ = "teams"

    team_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    team_alias: Mapped[str] = mapped_column(String(200), unique=True)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=now)


class TeamMember(Base):
    """A user's membership and role in a team."""

    __tablename__ = "team_members"

    team_id: Mapped[str] = mapped_column(
        ForeignKey("teams.team_id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    role: Mapped[str] = mapped_column(String(8), default="user")


class ApiKey(Base):
    """An API key, stored as its SHA-256.

    `set_by` is who set what it reaches: `owner` (then it never reaches more than the owner),
    `admin`, or null for a key older than the column. `issued_with` is the key that created it; it
    is revoked with that key. `issued_by` is the user who created it, with any key; null for the
    operator.
    """

    __tablename__ = "api_keys"

    key_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    key_alias: Mapped[str | None] = mapped_column(String(200))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    key_prefix: Mapped[str] = mapped_column(String(16))
    user_id: Mapped[str | None] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), index=True
    )
    team_id: Mapped[str | None] = mapped_column(
        ForeignKey("teams.team_id", ondelete="CASCADE"), index=True
    )
    allowed_routes: Mapped[list[str]] = mapped_column(default=list)
    set_by: Mapped[str | None] = mapped_column(String(8))
    issued_with: Mapped[str | None] = mapped_column(_ID, index=True)
    issued_by: Mapped[str | None] = mapped_column(_ID)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AccessGroup(Base):
    """A named set of servers."""

    __tablename__ = "access_groups"

    access_group_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    description: Mapped[str | None] = mapped_column(Text)


class AccessGroupServer(Base):
    """A server in an access group."""

    __tablename__ = "access_group_servers"

    access_group_id: Mapped[str] = mapped_column(
        ForeignKey("access_groups.access_group_id", ondelete="CASCADE"), primary_key=True
    )
    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True, index=True
    )


class Grant(Base):
    """One grant of a user, team or key.

    `kind` is server, access_group, tools, toolset or own_group (`access_group_ids`). Deleting a
    server or group sets the reference to null: the row grants nothing, but still limits its holder.
    """

    __tablename__ = "grants"

    grant_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    holder_kind: Mapped[str] = mapped_column(String(8))
    holder_id: Mapped[str] = mapped_column(_ID)
    kind: Mapped[str] = mapped_column(String(16))
    server_id: Mapped[str | None] = mapped_column(
        ForeignKey("servers.server_id", ondelete="SET NULL"), index=True
    )
    access_group_id: Mapped[str | None] = mapped_column(
        ForeignKey("access_groups.access_group_id", ondelete="SET NULL"), index=True
    )
    toolset_id: Mapped[str | None] = mapped_column(_ID)
    tools: Mapped[list[str]] = mapped_column(default=list)

    __table_args__ = (Index("ix_grants_holder", "holder_kind", "holder_id"),)


class UserCredential(Base):
    """A user's own key (`byok`) or OAuth token (`oauth2`) for a server; both can exist."""

    __tablename__ = "user_credentials"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True
    )
    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(Sealed)
    expires_at: Mapped[datetime | None]
    scopes: Mapped[list[str]] = mapped_column(default=list)
    connected_at: Mapped[datetime] = mapped_column(default=now)
    issuer: Mapped[str | None] = mapped_column(Text)
    account: Mapped[str | None] = mapped_column(String(320))
    version: Mapped[int] = mapped_column(default=1, server_default="1")
    refresh_lease_until: Mapped[datetime | None]
    reconnect_because: Mapped[str | None] = mapped_column(String(32))
    renewable: Mapped[bool] = mapped_column(default=False, server_default=false())


class UserVariable(Base):
    """A user's value of a per-user variable."""

    __tablename__ = "user_variables"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True
    )
    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(Sealed)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class BrowserSession(Base):
    """A browser session, under the SHA-256 of its cookie."""

    __tablename__ = "sessions"

    session_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str | None] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), index=True
    )
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)
    user_agent: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_seen_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class HealthRecord(Base):
    """The history of health checks."""

    __tablename__ = "health_records"

    record_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    server_id: Mapped[str] = mapped_column(ForeignKey("servers.server_id", ondelete="CASCADE"))
    checked_at: Mapped[datetime] = mapped_column(default=now)
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(24))
    message: Mapped[str | None] = mapped_column(Text)
    latency_ms: Mapped[int | None]

    __table_args__ = (Index("ix_health_records_history", "server_id", "checked_at"),)


class Preference(Base):
    """An instance setting that an Admin changes while the portal runs."""

    __tablename__ = "preferences"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)


class Proposal(Base):
    """A proposed change to a live server, which stays as approved until an Admin decides."""

    __tablename__ = "proposals"

    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True
    )
    sealed: Mapped[bytes] = mapped_column(Sealed)
    summary: Mapped[dict[str, Any]] = mapped_column(default=dict)
    submitted_by: Mapped[str] = mapped_column(String(320))
    submitted_at: Mapped[datetime] = mapped_column(default=now)


class ImportDraft(Base):
    """A document that a user is about to import, sealed; kept for an hour or until the import."""

    __tablename__ = "import_drafts"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True
    )
    sealed: Mapped[bytes] = mapped_column(Sealed)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Review(Base):
    """A step in a submission's history, with the facts at that time, secrets as hashes."""

    __tablename__ = "reviews"

    review_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), index=True
    )
    at: Mapped[datetime] = mapped_column(default=now)
    actor: Mapped[str] = mapped_column(String(320))
    verdict: Mapped[str] = mapped_column(String(16))
    notes: Mapped[str | None] = mapped_column(Text)
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Toolset(Base):
    """A named selection of tools across servers."""

    __tablename__ = "toolsets"

    toolset_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    toolset_name: Mapped[str] = mapped_column(String(200), unique=True)
    description: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
    created_by: Mapped[str | None] = mapped_column(String(320))
    updated_at: Mapped[datetime] = mapped_column(default=now)
    updated_by: Mapped[str | None] = mapped_column(String(320))


class ToolsetTool(Base):
    """A tool of a toolset; deleted with its server, kept if the server no longer offers it."""

    __tablename__ = "toolset_tools"

    toolset_id: Mapped[str] = mapped_column(
        ForeignKey("toolsets.toolset_id", ondelete="CASCADE"), primary_key=True
    )
    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    tool_name: Mapped[str] = mapped_column(String(300), primary_key=True)
    position: Mapped[int] = mapped_column(default=0)


class ToolSight(Base):
    """When a server's tools were first listed (and accepted), and last compared.

    `probed` is what a reviewer saw of a submission, with its version.
    """

    __tablename__ = "tool_sights"

    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True
    )
    first_at: Mapped[datetime | None]
    first_by: Mapped[str | None] = mapped_column(String(320))
    compared_at: Mapped[datetime | None]
    probed: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class AcceptedTool(Base):
    """The accepted definition of a tool, and the last different one. Upstream text, never trusted.

    `state` is same, added, changed, removed, or aside (it differs, but the server's allow-list
    excludes the tool).
    """

    __tablename__ = "tool_definitions"

    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True
    )
    tool_name: Mapped[str] = mapped_column(String(300), primary_key=True)
    state: Mapped[str] = mapped_column(String(8))
    accepted_hash: Mapped[str | None] = mapped_column(String(64))
    accepted: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    accepted_by: Mapped[str | None] = mapped_column(String(320))
    accepted_at: Mapped[datetime | None]
    seen_hash: Mapped[str | None] = mapped_column(String(64))
    seen: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    seen_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_tool_definitions_state", "state", "server_id"),)


class AuditEvent(Base):
    """An audit event: who did what to which object, and from where; never a secret."""

    __tablename__ = "audit_events"

    event_id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(default=now, index=True)
    actor: Mapped[str] = mapped_column(String(320))
    actor_id: Mapped[str | None] = mapped_column(_ID)
    key_id: Mapped[str | None] = mapped_column(_ID)
    address: Mapped[str | None] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    target_kind: Mapped[str] = mapped_column(String(32))
    target_id: Mapped[str | None] = mapped_column(String(320), index=True)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    sequence: Mapped[int | None] = mapped_column(unique=True)
    outcome: Mapped[str] = mapped_column(String(8), default="done", server_default="done")
    previous_hash: Mapped[str | None] = mapped_column(String(64))
    event_hash: Mapped[str | None] = mapped_column(String(64))
    hash_key: Mapped[str | None] = mapped_column(String(64))


class ChainKey(Base):
    """A key of the audit chain, sealed; it verifies events after it left the ring."""

    __tablename__ = "chain_keys"

    chain_key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(Sealed)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Revocation(Base):
    """A revoked access, written by triggers (`watching.py`) in the same transaction.

    `op` is start, ended, limited or returned; `kind` is the table, `subject` the JSON list of the
    row's ids, `facts` what is left of a limited row.
    """

    __tablename__ = "revocations"

    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    entry_id: Mapped[str] = mapped_column(String(64), unique=True)
    at: Mapped[datetime]
    op: Mapped[str] = mapped_column(String(8))
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(Text)
    facts: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("ix_revocations_kind_subject", "kind", "subject"),)


class RateCount(Base):
    """Attempts of the current and the previous window of a rate limit, without Redis.

    `key_hash` is the SHA-256 of what is counted; times are Unix times by the database's clock.
    """

    __tablename__ = "rate_counts"

    key_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    started_at: Mapped[float] = mapped_column(Double)
    hits: Mapped[int]
    hits_before: Mapped[int] = mapped_column(default=0)
    expires_at: Mapped[float] = mapped_column(Double, index=True)


class KnownSignIn(Base):
    """A browser or address of a recent password sign-in; `mark_hash` is its SHA-256."""

    __tablename__ = "known_sign_ins"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True
    )
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    mark_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    seen_at: Mapped[datetime] = mapped_column(default=now, index=True)
