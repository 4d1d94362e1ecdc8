"""API keys that should be revoked or replaced."""

from collections.abc import Iterator, Sequence

from portal.cli.checks.findings import Finding, Surroundings, ok, warn
from portal.domain.principals import OPERATOR
from portal.services.access.key_checks import find_keys_to_look_at

_NAME = "API keys"
_NAMED = 5


def in_order(around: Surroundings) -> Iterator[Finding]:
    """Check for keys of former team members, and keys that live longer than allowed."""
    with around.database.session() as session:
        found = find_keys_to_look_at(session, OPERATOR)
    if found.left_team:
        cure = "They do not work; revoke them: portal keys revoke KEY_ID"
        yield warn(
            _NAME,
            f"{_counted(found.left_team)} of users who left the key's team",
            cure,
        )
    if found.too_long:
        allowed = f"the {found.most_days} days of key_max_age_days"
        cure = "They still work: create new keys that expire, then run portal keys revoke KEY_ID"
        yield warn(
            _NAME,
            f"{_counted(found.too_long)} without an expiry, or with one later than {allowed}",
            cure,
        )
    if not found.left_team and not found.too_long:
        yield ok(_NAME, "no key belongs to a former team member or lives longer than allowed")


def _counted(key_ids: Sequence[str]) -> str:
    """Return the number of keys, with the ids of the oldest."""
    more = f" and {len(key_ids) - _NAMED} more" if len(key_ids) > _NAMED else ""
    return (
        f"{len(key_ids)} {'key' if len(key_ids) == 1 else 'keys'}"
        f" ({', '.join(key_ids[:_NAMED])}{more})"
    )
