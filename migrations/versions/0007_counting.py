"""Rate limits in the database, known browsers and addresses, and shared equal registrations"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rate_counts",
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("hits", sa.Integer(), nullable=False),
        sa.Column("hits_before", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key_hash", name=op.f("pk_rate_counts")),
    )
    op.create_index(op.f("ix_rate_counts_expires_at"), "rate_counts", ["expires_at"])
    op.create_table(
        "known_sign_ins",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("mark_hash", sa.String(length=64), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.user_id"],
            name=op.f("fk_known_sign_ins_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "kind", "mark_hash", name=op.f("pk_known_sign_ins")),
    )
    op.create_index(op.f("ix_known_sign_ins_seen_at"), "known_sign_ins", ["seen_at"])
    op.add_column("mcp_clients", sa.Column("fingerprint", sa.String(length=64), nullable=True))
    op.add_column("mcp_clients", sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f("ix_mcp_clients_fingerprint"), "mcp_clients", ["fingerprint"], unique=True)


def downgrade() -> None:
    op.drop_index(op.f("ix_mcp_clients_fingerprint"), table_name="mcp_clients")
    op.drop_column("mcp_clients", "seen_at")
    op.drop_column("mcp_clients", "fingerprint")
    op.drop_table("known_sign_ins")
    op.drop_table("rate_counts")
