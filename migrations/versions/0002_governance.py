"""Submissions, toolsets and the audit chain"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "import_drafts",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.user_id"],
            name=op.f("fk_import_drafts_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_import_drafts")),
    )
    op.create_table(
        "toolsets",
        sa.Column("toolset_id", sa.String(length=128), nullable=False),
        sa.Column("toolset_name", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=320), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=320), nullable=True),
        sa.PrimaryKeyConstraint("toolset_id", name=op.f("pk_toolsets")),
        sa.UniqueConstraint("toolset_name", name=op.f("uq_toolsets_toolset_name")),
    )
    op.create_table(
        "proposals",
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("submitted_by", sa.String(length=320), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_proposals_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_proposals")),
    )
    op.create_table(
        "reviews",
        sa.Column("review_id", sa.String(length=128), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=320), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_reviews_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("review_id", name=op.f("pk_reviews")),
    )
    with op.batch_alter_table("reviews", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_reviews_server_id"), ["server_id"], unique=False)

    op.create_table(
        "toolset_tools",
        sa.Column("toolset_id", sa.String(length=128), nullable=False),
        sa.Column("server_id", sa.String(length=128), nullable=False),
        sa.Column("tool_name", sa.String(length=300), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["servers.server_id"],
            name=op.f("fk_toolset_tools_server_id_servers"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["toolset_id"],
            ["toolsets.toolset_id"],
            name=op.f("fk_toolset_tools_toolset_id_toolsets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "toolset_id", "server_id", "tool_name", name=op.f("pk_toolset_tools")
        ),
    )
    with op.batch_alter_table("toolset_tools", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_toolset_tools_server_id"), ["server_id"], unique=False)

    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.add_column(sa.Column("sequence", sa.Integer(), nullable=True))
        batch_op.add_column(
            sa.Column("outcome", sa.String(length=8), server_default="done", nullable=False)
        )
        batch_op.add_column(sa.Column("previous_hash", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("event_hash", sa.String(length=64), nullable=True))
        batch_op.create_unique_constraint(batch_op.f("uq_audit_events_sequence"), ["sequence"])

    with op.batch_alter_table("servers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("submitted_team_id", sa.String(length=128), nullable=True))
        batch_op.add_column(sa.Column("wishes", sa.JSON(none_as_null=True), nullable=True))
        batch_op.create_index(batch_op.f("ix_servers_submitted_by"), ["submitted_by"], unique=False)


def downgrade() -> None:
    # Without its columns there is no chain, so a later one must not be compared with this head.
    op.execute("DELETE FROM preferences WHERE name IN ('audit_head', 'audit_verified')")
    op.drop_table("import_drafts")
    with op.batch_alter_table("servers", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_servers_submitted_by"))
        batch_op.drop_column("wishes")
        batch_op.drop_column("submitted_team_id")

    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("uq_audit_events_sequence"), type_="unique")
        batch_op.drop_column("event_hash")
        batch_op.drop_column("previous_hash")
        batch_op.drop_column("outcome")
        batch_op.drop_column("sequence")

    with op.batch_alter_table("toolset_tools", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_toolset_tools_server_id"))

    op.drop_table("toolset_tools")
    with op.batch_alter_table("reviews", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_reviews_server_id"))

    op.drop_table("reviews")
    op.drop_table("proposals")
    op.drop_table("toolsets")
