"""The record of what was done: one event in the same transaction as the change it tells of."""

from sqlalchemy.orm import Session

from portal.domain.principals import Principal
from portal.store.models import AuditEvent


def record(
    session: Session, principal: Principal, action: str, kind: str, target_id: str | None, **details: object
) -> None:
    """Add an event; `details` name fields and counts, never a secret."""
    session.add(
        AuditEvent(
            actor=principal.name, actor_id=principal.user_id, key_id=principal.key_id, address=principal.address,
            action=action, target_kind=kind, target_id=target_id, details=details,
        )
    )  # fmt: skip
