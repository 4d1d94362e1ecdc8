"""OAuth: flows, client registrations, consents, temporary servers and tokens"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mcp_clients",
        sa.Column("registration_id", sa.String(length=128), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=True),
        sa.Column("client_id", sa.String(length=512), nullable=False),
        sa.Column("client_name", sa.String(length=80), nullable=True),
        sa.Column("redirect_uris", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("registration_id", name=op.f("pk_mcp_clients")),
    )
    op.create_index(op.f("ix_mcp_clients_client_id"), "mcp_clients", ["client_id"])
    op.create_index(op.f("ix_mcp_clients_server_id"), "mcp_clients", ["server_id"])

    op.create_table(
        "temporary_servers",
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("incarnation", sa.String(length=128), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_by", sa.String(length=320), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_temporary_servers")),
    )
    op.create_index(op.f("ix_temporary_servers_expires_at"), "temporary_servers", ["expires_at"])

    op.create_table(
        "consents",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("client_hash", sa.String(length=64), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("client_name", sa.String(length=80), nullable=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_consents_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.user_id"],
            name=op.f("fk_consents_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "server_id", "client_hash", name=op.f("pk_consents")),
    )
    op.create_table(
        "oauth_client_registrations",
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("issuer", sa.String(length=512), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_oauth_client_registrations_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("server_id", "issuer", name=op.f("pk_oauth_client_registrations")),
    )
    op.create_table(
        "oauth_flows",
        sa.Column("flow_id", sa.String(length=128), nullable=False),
        sa.Column("state_hash", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("browser_hash", sa.String(length=64), nullable=True),
        sa.Column("user_id", sa.String(length=128), nullable=True),
        sa.Column("server_id", sa.String(length=128), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.user_id"],
            name=op.f("fk_oauth_flows_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("flow_id", name=op.f("pk_oauth_flows")),
        sa.UniqueConstraint("state_hash", name=op.f("uq_oauth_flows_state_hash")),
    )
    op.create_index(op.f("ix_oauth_flows_expires_at"), "oauth_flows", ["expires_at"])
    op.create_index(op.f("ix_oauth_flows_server_id"), "oauth_flows", ["server_id"])
    op.create_index(op.f("ix_oauth_flows_user_id"), "oauth_flows", ["user_id"])

    op.create_table(
        "server_authorizations",
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("found", sa.JSON(), nullable=False),
        sa.Column("discovered_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_server_authorizations_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_server_authorizations")),
    )
    op.create_table(
        "shared_tokens",
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_shared_tokens_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("server_id", "subject", name=op.f("pk_shared_tokens")),
    )
    with op.batch_alter_table("user_credentials", schema=None) as batch_op:
        batch_op.add_column(sa.Column("issuer", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("account", sa.String(length=320), nullable=True))
        batch_op.add_column(sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
        batch_op.add_column(
            sa.Column("refresh_lease_until", sa.DateTime(timezone=True), nullable=True)
        )
        batch_op.add_column(sa.Column("reconnect_because", sa.String(length=32), nullable=True))
        batch_op.add_column(
            sa.Column("renewable", sa.Boolean(), nullable=False, server_default=sa.false())
        )


def downgrade() -> None:
    with op.batch_alter_table("user_credentials", schema=None) as batch_op:
        batch_op.drop_column("renewable")
        batch_op.drop_column("reconnect_because")
        batch_op.drop_column("refresh_lease_until")
        batch_op.drop_column("version")
        batch_op.drop_column("account")
        batch_op.drop_column("issuer")

    op.drop_table("shared_tokens")
    op.drop_table("server_authorizations")

    op.drop_table("oauth_flows")
    op.drop_table("oauth_client_registrations")
    op.drop_table("consents")

    op.drop_table("temporary_servers")

    op.drop_table("mcp_clients")
