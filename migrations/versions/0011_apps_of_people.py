"""Apps that users allowed to use the gateway, and their tokens"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "app_grants",
        sa.Column("grant_id", sa.String(length=128), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=True),
        sa.Column("toolset_id", sa.String(length=128), nullable=True),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("client_hash", sa.String(length=64), nullable=False),
        sa.Column("client_name", sa.String(length=80), nullable=True),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.user_id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["server_id"], ["servers.server_id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["toolset_id"], ["toolsets.toolset_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("grant_id"),
    )
    for column in ("user_id", "server_id", "toolset_id"):
        op.create_index(f"ix_app_grants_{column}", "app_grants", [column])
    op.create_table(
        "app_tokens",
        sa.Column("bearer_hash", sa.String(length=64), nullable=False),
        sa.Column("grant_id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spent_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["grant_id"], ["app_grants.grant_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("bearer_hash"),
    )
    for column in ("grant_id", "expires_at"):
        op.create_index(f"ix_app_tokens_{column}", "app_tokens", [column])


def downgrade() -> None:
    op.drop_table("app_tokens")
    op.drop_table("app_grants")
