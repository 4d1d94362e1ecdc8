"""Keys that need attention, for `portal doctor`."""

from dataclasses import dataclass

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.principals import Principal
from portal.services.instance_settings import load_preferences
from portal.store.models import ApiKey, User, now


@dataclass(frozen=True)
class KeysToLookAt:
    """Ids of keys, oldest first.

    `left_team` keys do not work because their owner left the team. `too_long` keys work, but live
    longer than the `most_days` that the settings allow (None for no limit).
    """

    left_team: tuple[str, ...]
    too_long: tuple[str, ...]
    most_days: int | None


def find_keys_to_look_at(session: Session, principal: Principal) -> KeysToLookAt:
    """Return the keys that an Admin should revoke or replace."""
    authz.require(principal, Action.KEY_READ)
    at = now()
    most_days = load_preferences(session).key_max_age_days
    alive = and_(
        ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > at)
    )
    of_leavers = and_(alive, User.is_active, ApiKey.team_id.is_not(None), ~authz.owner_is_member())
    left = select(ApiKey.key_id).join(User, User.user_id == ApiKey.user_id).where(of_leavers)
    oldest_first = (ApiKey.created_at, ApiKey.key_id)
    too_long: tuple[str, ...] = ()
    if most_days is not None:
        works = select(ApiKey.key_id, ApiKey.created_at, ApiKey.expires_at).where(
            authz.working_keys(at)
        )
        rows = session.execute(works.order_by(*oldest_first))
        too_long = tuple(
            r.key_id for r in rows if not authz.key_complies(most_days, r.created_at, r.expires_at)
        )
    return KeysToLookAt(tuple(session.scalars(left.order_by(*oldest_first))), too_long, most_days)
