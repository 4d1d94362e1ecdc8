"""The metadata of a backup, and what has to end when one is restored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.access import dormancy
from portal.services.audit import hash_chain
from portal.services.operations.restoring import end_short_lived
from portal.services.secrets.rotation import count_values
from portal.store.models import Base


@dataclass(frozen=True)
class Facts:
    """What is in a database: values by the id of their key, the audit head, and row counts."""

    keys: Mapping[str, int]
    audit: Mapping[str, Any]
    rows: Mapping[str, int]


def count_content(session: Session, principal: Principal) -> Facts:
    """Count what is in the database, whose schema may be older than this code."""
    authz.require(principal, Action.VAULT_MANAGE)
    head = hash_chain.read_head(session)
    tables = Base.metadata.sorted_tables
    return Facts(
        keys={use.key_id: use.total for use in count_values(session, principal) if use.total},
        audit={"sequence": head.sequence, "hash": head.event_hash} if head else {},
        rows={
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in tables
        },
    )


def record_backup(session: Session, principal: Principal, **facts: Any) -> None:
    """Record in the audit log that a backup was made."""
    authz.require(principal, Action.VAULT_MANAGE)
    audit.record(session, principal, "backup made", "database", None, **facts)


def begin_anew(
    session: Session, principal: Principal, *, knows_what_ended: bool = True, **facts: Any
) -> None:
    """End what a restored database would bring back to life, and audit the restore.

    That is browser sessions, pending sign-ins and codes, short-lived keys of MCP clients, and
    definitions under test. `revocations.py` handles what was revoked since the backup.
    """
    authz.require(principal, Action.VAULT_MANAGE)
    end_short_lived(session)
    if not knows_what_ended:
        dormancy.make_dormant(session, "The database was restored without its revocation journal.")
    audit.record(session, principal, "backup restored", "database", None, **facts)
    session.flush()
