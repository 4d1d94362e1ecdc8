"""Revocations, and keys of the audit chain"""

import base64
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_KEPT = "kept_by_downgrade_0006"
_PREFERENCES = sa.table("preferences", sa.column("name", sa.String), sa.column("value", sa.JSON))
_TIME = sa.DateTime(timezone=True)
_EVENTS = sa.table(
    "audit_events", sa.column("sequence", sa.Integer), sa.column("hash_key", sa.String)
)
_CHAIN_KEYS = sa.table(
    "chain_keys",
    sa.column("chain_key_id", sa.String),
    sa.column("sealed", sa.LargeBinary),
    sa.column("created_at", _TIME),
)
_REVOCATIONS = sa.table(
    "revocations",
    sa.column("position", sa.Integer),
    sa.column("entry_id", sa.String),
    sa.column("at", _TIME),
    *(sa.column(name, sa.String) for name in ("op", "kind", "subject", "facts")),
)


def upgrade() -> None:
    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.add_column(sa.Column("hash_key", sa.String(length=64), nullable=True))
    op.create_table(
        "chain_keys",
        sa.Column("chain_key_id", sa.String(length=64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("chain_key_id", name=op.f("pk_chain_keys")),
    )
    op.create_table(
        "revocations",
        sa.Column("position", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("entry_id", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("op", sa.String(length=8), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_revocations")),
        sa.UniqueConstraint("entry_id", name=op.f("uq_revocations_entry_id")),
    )
    with op.batch_alter_table("revocations", schema=None) as batch_op:
        batch_op.create_index("ix_revocations_kind_subject", ["kind", "subject"], unique=False)
    _put_back(op.get_bind())


def downgrade() -> None:
    """Keep what the previous version cannot store among the settings, for the next upgrade."""
    connection = op.get_bind()
    _remove_triggers(connection)
    _keep(connection)
    with op.batch_alter_table("revocations", schema=None) as batch_op:
        batch_op.drop_index("ix_revocations_kind_subject")
    op.drop_table("revocations")
    op.drop_table("chain_keys")
    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.drop_column("hash_key")


def _remove_triggers(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        names = sa.text(
            "select name from sqlite_master where type = 'trigger' and name like :pattern"
        )
        drop = "drop trigger {}"
    else:
        names = sa.text(
            "select proname from pg_proc where proname like :pattern and pronamespace ="
            " current_schema()::regnamespace"
        )
        drop = "drop function {}() cascade"
    for name in connection.scalars(names, {"pattern": "portal_ends_%"}).all():
        connection.exec_driver_sql(drop.format(name))


def _keep(connection: sa.Connection) -> None:
    keyed = sa.select(_EVENTS.c.sequence, _EVENTS.c.hash_key).where(_EVENTS.c.hash_key.is_not(None))
    spans: list[list[Any]] = []
    for sequence, key in connection.execute(
        keyed.where(_EVENTS.c.sequence.is_not(None)).order_by(_EVENTS.c.sequence)
    ):
        if spans and spans[-1][1] == sequence - 1 and spans[-1][2] == key:
            spans[-1][1] = sequence
        else:
            spans.append([sequence, sequence, key])
    kept: dict[str, Any] = {
        "spans": spans,
        "keys": [
            [row.chain_key_id, base64.b64encode(row.sealed).decode(), row.created_at.isoformat()]
            for row in connection.execute(sa.select(_CHAIN_KEYS))
        ],
        "revocations": [
            [
                row.position,
                row.entry_id,
                row.at.isoformat(),
                row.op,
                row.kind,
                row.subject,
                row.facts,
            ]
            for row in connection.execute(sa.select(_REVOCATIONS))
        ],
    }
    if spans:  # every portal that has run has keyed events
        connection.execute(_PREFERENCES.insert().values(name=_KEPT, value=kept))


def _put_back(connection: sa.Connection) -> None:
    kept = connection.scalar(sa.select(_PREFERENCES.c.value).where(_PREFERENCES.c.name == _KEPT))
    if not kept:
        return
    for first, last, key in kept["spans"]:
        connection.execute(
            _EVENTS.update().where(_EVENTS.c.sequence.between(first, last)).values(hash_key=key)
        )
    for key_id, sealed, at in kept["keys"]:
        connection.execute(
            _CHAIN_KEYS.insert().values(
                chain_key_id=key_id, sealed=base64.b64decode(sealed), created_at=_time(at)
            )
        )
    names = [column.name for column in _REVOCATIONS.columns]
    for row in kept["revocations"]:
        values = dict(zip(names, row, strict=True)) | {"at": _time(row[2])}
        connection.execute(_REVOCATIONS.insert().values(values))
    if connection.dialect.name == "postgresql" and kept["revocations"]:
        connection.execute(
            sa.text(
                "select setval(pg_get_serial_sequence('revocations', 'position'),"
                " (select max(position) from revocations))"
            )
        )
    connection.execute(_PREFERENCES.delete().where(_PREFERENCES.c.name == _KEPT))


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
