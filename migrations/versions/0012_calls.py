"""The calls of MCP clients through the gateway, and when a user last used a server"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mcp_call_batches",
        sa.Column("batch_id", sa.String(length=128), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("chained_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("batch_id"),
    )
    op.create_index("ix_mcp_call_batches_began_at", "mcp_call_batches", ["began_at"])
    op.create_table(
        "mcp_calls",
        sa.Column("batch_id", sa.String(length=128), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=True),
        sa.Column("key_id", sa.String(length=128), nullable=True),
        sa.Column("app_id", sa.Text(), nullable=True),
        sa.Column("client_name", sa.String(length=80), nullable=True),
        sa.Column("client_version", sa.String(length=40), nullable=True),
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("method", sa.String(length=32), nullable=False),
        sa.Column("tool", sa.String(length=128), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("bytes_in", sa.BigInteger(), nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["mcp_call_batches.batch_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "number"),
    )
    for column in ("server_id", "user_id"):
        op.create_index(f"ix_mcp_calls_{column}_at", "mcp_calls", [column, "at"])
    op.create_table(
        "mcp_uses",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_call", sa.Boolean(), nullable=False),
        sa.Column("client_name", sa.String(length=80), nullable=True),
        sa.Column("client_version", sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.user_id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["server_id"], ["servers.server_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "server_id"),
    )
    op.create_index("ix_mcp_uses_server_id", "mcp_uses", ["server_id"])


def downgrade() -> None:
    op.drop_table("mcp_uses")
    op.drop_table("mcp_calls")
    op.drop_table("mcp_call_batches")
