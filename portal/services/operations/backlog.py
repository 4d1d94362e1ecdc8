"""How much work is waiting, for monitoring."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.oauth import REFRESH_MARGIN
from portal.domain.principals import Principal
from portal.domain.servers import ApprovalStatus
from portal.services.submissions.review_queue import WAITS
from portal.store.models import Server, UserCredential, now


@dataclass(frozen=True)
class Waiting:
    """Counts of waiting work.

    `probes`: servers due for a health check, the oldest for `oldest_probe_seconds`; `sign_ins`:
    connections that the next call renews; `submissions`: servers and changes waiting for a
    decision.
    """

    probes: int
    oldest_probe_seconds: float
    sign_ins: int
    submissions: int


def count_waiting(session: Session, principal: Principal) -> Waiting:
    """Count the waiting work, in three queries."""
    authz.require(principal, Action.PREFERENCE_MANAGE)
    at = now()
    due = select(func.count(), func.min(Server.probe_due_at)).where(
        Server.probe_due_at <= at, Server.approval_status == ApprovalStatus.ACTIVE.value
    )
    probes, oldest = session.execute(due).one()
    expiring = UserCredential.renewable.is_(True), UserCredential.expires_at <= at + REFRESH_MARGIN
    sign_ins = select(func.count()).where(*expiring, UserCredential.reconnect_because.is_(None))
    submissions = select(func.count()).select_from(Server).where(WAITS)
    return Waiting(
        probes,
        (at - oldest).total_seconds() if oldest else 0.0,
        session.scalar(sign_ins) or 0,
        session.scalar(submissions) or 0,
    )
