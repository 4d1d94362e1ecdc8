"""Header, env and global values, arguments and credentials bound to where they go

The values themselves are bound when the portal starts, since that takes the key ring
(`services/operations/binding.py`). What an older version reads and writes stays beside them, so
that it serves on, and so that a downgrade loses nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("server_secrets", "server_variables")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("bound", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    for table in _TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("bound")
