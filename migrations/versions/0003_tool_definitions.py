"""Accepted tool definitions, and changed ones"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tool_sights",
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_by", sa.String(length=320), nullable=True),
        sa.Column("compared_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probed", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_tool_sights_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_tool_sights")),
    )
    op.create_table(
        "tool_definitions",
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("tool_name", sa.String(length=300), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("accepted_hash", sa.String(length=64), nullable=True),
        sa.Column("accepted", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("accepted_by", sa.String(length=320), nullable=True),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seen_hash", sa.String(length=64), nullable=True),
        sa.Column("seen", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_tool_definitions_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("server_id", "tool_name", name=op.f("pk_tool_definitions")),
    )
    with op.batch_alter_table("tool_definitions", schema=None) as batch_op:
        batch_op.create_index("ix_tool_definitions_state", ["state", "server_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("tool_definitions", schema=None) as batch_op:
        batch_op.drop_index("ix_tool_definitions_state")

    op.drop_table("tool_definitions")
    op.drop_table("tool_sights")
