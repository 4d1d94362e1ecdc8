"""The first schema"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "access_groups",
        sa.Column("access_group_id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("access_group_id", name=op.f("pk_access_groups")),
        sa.UniqueConstraint("name", name=op.f("uq_access_groups_name")),
    )
    op.create_table(
        "audit_events",
        sa.Column("event_id", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=320), nullable=False),
        sa.Column("actor_id", sa.String(length=128), nullable=True),
        sa.Column("key_id", sa.String(length=128), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target_kind", sa.String(length=32), nullable=False),
        sa.Column("target_id", sa.String(length=320), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_audit_events")),
    )
    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_events_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_events_target_id"), ["target_id"], unique=False)

    op.create_table(
        "preferences",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_preferences")),
    )
    op.create_table(
        "servers",
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("incarnation", sa.String(length=128), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sort_key", sa.String(length=200), nullable=False),
        sa.Column("server_name", sa.String(length=64), nullable=True),
        sa.Column("alias", sa.String(length=64), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("instructions", sa.Text(), nullable=True),
        sa.Column("transport", sa.String(length=16), nullable=False),
        sa.Column("auth_type", sa.String(length=32), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("has_spec", sa.Boolean(), nullable=False),
        sa.Column("command", sa.String(length=64), nullable=True),
        sa.Column("oauth2_flow", sa.String(length=32), nullable=True),
        sa.Column("mcp_info", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("allowed_tools", sa.JSON(), nullable=False),
        sa.Column("tool_name_to_display_name", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("tool_name_to_description", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("extra_headers", sa.JSON(), nullable=False),
        sa.Column("token_validation", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("allow_all_keys", sa.Boolean(), nullable=False),
        sa.Column("available_on_public_internet", sa.Boolean(), nullable=False),
        sa.Column("delegate_auth_to_upstream", sa.Boolean(), nullable=False),
        sa.Column("oauth_passthrough", sa.Boolean(), nullable=False),
        sa.Column("is_byok", sa.Boolean(), nullable=False),
        sa.Column("byok_description", sa.JSON(), nullable=False),
        sa.Column("byok_api_key_help_url", sa.Text(), nullable=True),
        sa.Column("source_url", sa.Text(), nullable=True),
        sa.Column("timeout", sa.Double(), nullable=True),
        sa.Column("is_public", sa.Boolean(), nullable=False),
        sa.Column("approval_status", sa.String(length=16), nullable=False),
        sa.Column("submitted_by", sa.String(length=320), nullable=True),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reviewed_by", sa.String(length=320), nullable=True),
        sa.Column("reviewed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("review_notes", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=320), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=320), nullable=True),
        sa.Column("health_status", sa.String(length=16), nullable=False),
        sa.Column("health_reason", sa.String(length=24), nullable=False),
        sa.Column("health_error", sa.Text(), nullable=True),
        sa.Column("health_checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("health_latency_ms", sa.Integer(), nullable=True),
        sa.Column("protocol_version", sa.String(length=32), nullable=True),
        sa.Column("probe_due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("probe_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_failures", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_servers")),
        sa.UniqueConstraint("alias", name=op.f("uq_servers_alias")),
        sa.UniqueConstraint("server_name", name=op.f("uq_servers_server_name")),
    )
    with op.batch_alter_table("servers", schema=None) as batch_op:
        batch_op.create_index(
            "ix_servers_list",
            [
                "approval_status",
                "sort_key",
                "server_id",
                "allow_all_keys",
                "available_on_public_internet",
                "is_public",
                "is_byok",
            ],
            unique=False,
        )
        batch_op.create_index("ix_servers_probe_due_at", ["probe_due_at"], unique=False)

    op.create_table(
        "teams",
        sa.Column("team_id", sa.String(length=128), nullable=False),
        sa.Column("team_alias", sa.String(length=200), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("team_id", name=op.f("pk_teams")),
        sa.UniqueConstraint("team_alias", name=op.f("uq_teams_team_alias")),
    )
    op.create_table(
        "users",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=True),
        sa.Column("display_name", sa.String(length=200), nullable=True),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("must_change_password", sa.Boolean(), nullable=False),
        sa.Column("sso_issuer", sa.Text(), nullable=True),
        sa.Column("sso_subject", sa.Text(), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("theme", sa.String(length=8), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
        sa.UniqueConstraint(
            "sso_issuer", "sso_subject", name=op.f("uq_users_sso_issuer_sso_subject")
        ),
    )
    op.create_table(
        "access_group_servers",
        sa.Column("access_group_id", sa.String(length=128), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["access_group_id"],
            ["access_groups.access_group_id"],
            name=op.f("fk_access_group_servers_access_group_id_access_groups"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_access_group_servers_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "access_group_id", "server_id", name=op.f("pk_access_group_servers")
        ),
    )
    with op.batch_alter_table("access_group_servers", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_access_group_servers_server_id"), ["server_id"], unique=False
        )

    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(length=128), nullable=False),
        sa.Column("key_alias", sa.String(length=200), nullable=True),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("key_prefix", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=True),
        sa.Column("team_id", sa.String(length=128), nullable=True),
        sa.Column("allowed_routes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["team_id"],
            ["teams.team_id"],
            name=op.f("fk_api_keys_team_id_teams"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.user_id"],
            name=op.f("fk_api_keys_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
    )
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_keys_team_id"), ["team_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_api_keys_user_id"), ["user_id"], unique=False)

    op.create_table(
        "grants",
        sa.Column("grant_id", sa.String(length=128), nullable=False),
        sa.Column("holder_kind", sa.String(length=8), nullable=False),
        sa.Column("holder_id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=True),
        sa.Column("access_group_id", sa.String(length=128), nullable=True),
        sa.Column("toolset_id", sa.String(length=128), nullable=True),
        sa.Column("tools", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["access_group_id"],
            ["access_groups.access_group_id"],
            name=op.f("fk_grants_access_group_id_access_groups"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_grants_server_id_servers"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("grant_id", name=op.f("pk_grants")),
    )
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_grants_access_group_id"), ["access_group_id"], unique=False
        )
        batch_op.create_index("ix_grants_holder", ["holder_kind", "holder_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_grants_server_id"), ["server_id"], unique=False)

    op.create_table(
        "health_records",
        sa.Column("record_id", sa.String(length=128), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=24), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_health_records_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("record_id", name=op.f("pk_health_records")),
    )
    with op.batch_alter_table("health_records", schema=None) as batch_op:
        batch_op.create_index(
            "ix_health_records_history", ["server_id", "checked_at"], unique=False
        )

    op.create_table(
        "server_secrets",
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("field", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=True),
        sa.Column("refers_to", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_server_secrets_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("server_id", "field", "name", name=op.f("pk_server_secrets")),
    )
    op.create_table(
        "server_variables",
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("is_required", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_server_variables_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("server_id", "position", name=op.f("pk_server_variables")),
    )
    with op.batch_alter_table("server_variables", schema=None) as batch_op:
        batch_op.create_index(
            "ix_server_variables_required", ["is_required", "server_id"], unique=False
        )

    op.create_table(
        "sessions",
        sa.Column("session_hash", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("user_agent", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.user_id"],
            name=op.f("fk_sessions_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_hash", name=op.f("pk_sessions")),
    )
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sessions_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_sessions_user_id"), ["user_id"], unique=False)

    op.create_table(
        "team_members",
        sa.Column("team_id", sa.String(length=128), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"],
            ["teams.team_id"],
            name=op.f("fk_team_members_team_id_teams"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.user_id"],
            name=op.f("fk_team_members_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("team_id", "user_id", name=op.f("pk_team_members")),
    )
    with op.batch_alter_table("team_members", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_team_members_user_id"), ["user_id"], unique=False)

    op.create_table(
        "user_credentials",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("connected_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_user_credentials_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.user_id"],
            name=op.f("fk_user_credentials_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "server_id", "kind", name=op.f("pk_user_credentials")),
    )
    with op.batch_alter_table("user_credentials", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_user_credentials_server_id"), ["server_id"], unique=False
        )

    op.create_table(
        "user_variables",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_user_variables_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.user_id"],
            name=op.f("fk_user_variables_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "server_id", "name", name=op.f("pk_user_variables")),
    )
    with op.batch_alter_table("user_variables", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_user_variables_server_id"), ["server_id"], unique=False
        )


def downgrade() -> None:
    with op.batch_alter_table("user_variables", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_user_variables_server_id"))

    op.drop_table("user_variables")
    with op.batch_alter_table("user_credentials", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_user_credentials_server_id"))

    op.drop_table("user_credentials")
    with op.batch_alter_table("team_members", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_team_members_user_id"))

    op.drop_table("team_members")
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sessions_user_id"))
        batch_op.drop_index(batch_op.f("ix_sessions_expires_at"))

    op.drop_table("sessions")
    with op.batch_alter_table("server_variables", schema=None) as batch_op:
        batch_op.drop_index("ix_server_variables_required")

    op.drop_table("server_variables")
    op.drop_table("server_secrets")
    with op.batch_alter_table("health_records", schema=None) as batch_op:
        batch_op.drop_index("ix_health_records_history")

    op.drop_table("health_records")
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_grants_server_id"))
        batch_op.drop_index("ix_grants_holder")
        batch_op.drop_index(batch_op.f("ix_grants_access_group_id"))

    op.drop_table("grants")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_keys_user_id"))
        batch_op.drop_index(batch_op.f("ix_api_keys_team_id"))

    op.drop_table("api_keys")
    with op.batch_alter_table("access_group_servers", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_access_group_servers_server_id"))

    op.drop_table("access_group_servers")
    op.drop_table("users")
    op.drop_table("teams")
    with op.batch_alter_table("servers", schema=None) as batch_op:
        batch_op.drop_index("ix_servers_probe_due_at")
        batch_op.drop_index("ix_servers_list")

    op.drop_table("servers")
    op.drop_table("preferences")
    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_events_target_id"))
        batch_op.drop_index(batch_op.f("ix_audit_events_at"))

    op.drop_table("audit_events")
    op.drop_table("access_groups")
