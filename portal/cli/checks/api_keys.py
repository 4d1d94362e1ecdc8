"""API keys that should be revoked or replaced."""

from collections.abc import Iterator, Sequence

from portal.cli.checks.findings import Finding, Surroundings, ok, warn
from portal.domain.principals import OPERATOR
from portal.services.access.key_checks import find_keys_to_look_at

_NAME = "API keys"
_NAMED = 5


def in_order(around: Surroundings) -> Iterator[Finding]:
    """Whether keys of leavers are left, and keys that live longer than the settings allow."""
    with around.database.session() as session:
        found = find_keys_to_look_at(session, OPERATOR)
    if found.left_team:
        cure = "They open nothing; revoke them: portal keys revoke KEY_ID"
        yield warn(
            _NAME,
            f"{_counted(found.left_team)} of people who left the team that the key is for",
            cure,
        )
    if found.too_long:
        allowed = f"{found.most_days} days after it was made, as key_max_age_days has it"
        cure = "They go on working: issue others that end, then portal keys revoke KEY_ID"
        yield warn(
            _NAME,
            f"{_counted(found.too_long)} without an end, or with one later than {allowed}",
            cure,
        )
    if not found.left_team and not found.too_long:
        yield ok(_NAME, "none is a leaver's, and none lives longer than the settings allow")


def _counted(key_ids: Sequence[str]) -> str:
    """How many, and the ids of the oldest."""
    more = f" and {len(key_ids) - _NAMED} more" if len(key_ids) > _NAMED else ""
    return (
        f"{len(key_ids)} {'key' if len(key_ids) == 1 else 'keys'}"
        f" ({', '.join(key_ids[:_NAMED])}{more})"
    )
