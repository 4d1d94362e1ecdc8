"""Who set what an API key reaches: its owner or an Admin"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Existing keys keep null: they reach what they reached before.
    op.add_column("api_keys", sa.Column("set_by", sa.String(length=8), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_column("set_by")
