"""Keys revoked with the key that created them, and pauses between requests for own tokens

Rows of older versions have neither.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("issued_with", sa.String(length=128), nullable=True))
    op.create_index(op.f("ix_api_keys_issued_with"), "api_keys", ["issued_with"])
    op.add_column("shared_tokens", sa.Column("early", sa.Integer(), nullable=True))
    op.add_column(
        "shared_tokens", sa.Column("wait_until", sa.DateTime(timezone=True), nullable=True)
    )


def downgrade() -> None:
    with op.batch_alter_table("shared_tokens", schema=None) as batch_op:
        batch_op.drop_column("wait_until")
        batch_op.drop_column("early")
    op.drop_index(op.f("ix_api_keys_issued_with"), table_name="api_keys")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_column("issued_with")
