"""Header, env and global values, arguments and credentials bound to their destination

The values are bound when the portal starts, because that needs the key ring
(`services/operations/binding.py`). The values of older versions are kept as well, so that such a
version still works and a downgrade loses nothing.
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
