"""Which refresh token was issued to which MCP client and user, and who created an API key

Refresh tokens issued by older versions are unknown, so their clients sign in again. The creators of
existing keys are read from the audit log.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "refresh_grants",
        sa.Column("refresh_hash", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("client_hash", sa.String(length=64), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spent_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id", "server_id", "client_hash"],
            ["consents.user_id", "consents.server_id", "consents.client_hash"],
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("refresh_hash"),
    )
    op.create_index(
        "ix_refresh_grants_consent", "refresh_grants", ["user_id", "server_id", "client_hash"]
    )
    op.add_column("api_keys", sa.Column("issued_by", sa.String(length=128), nullable=True))
    op.execute(
        "UPDATE api_keys SET issued_by = (SELECT min(actor_id) FROM audit_events WHERE action ="
        " 'API key issued' AND target_kind = 'key' AND target_id = api_keys.key_id)"
    )


def downgrade() -> None:
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_column("issued_by")
    op.drop_index("ix_refresh_grants_consent", table_name="refresh_grants")
    op.drop_table("refresh_grants")
