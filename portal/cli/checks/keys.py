"""The key ring: whether it opens what is stored, and what is left to do with it."""

from collections.abc import Iterator

from portal.cli.checks.findings import Finding, Surroundings, bad, ok, warn
from portal.domain.principals import OPERATOR
from portal.services.secrets import rotation


def opens(around: Surroundings) -> Iterator[Finding]:
    """Whether stored secrets can be read, and under which keys they are."""
    with around.database.session() as session:
        uses = rotation.count_values(session, OPERATOR)
        opens = rotation.opens_something(session, OPERATOR)
    if any(use.stored for use in uses) and not opens:
        yield bad(
            "key ring",
            "it opens nothing that is stored",
            "Put the right keys into PORTAL_ENCRYPTION_KEYS",
        )
        return
    for use in uses:
        if use.key_id == rotation.BROKEN:
            yield bad(
                "key ring",
                f"{use.total} values are damaged",
                "portal keys status --verify names them; set them anew",
            )
        elif not use.in_ring:
            cure = (
                f"Add {use.key_id} to PORTAL_ENCRYPTION_KEYS, or set anew what portal keys status"
                " --verify names"
            )
            yield bad(
                "key ring", f"{use.total} values need the key {use.key_id}, which it lacks", cure
            )
        elif use.is_newest:
            yield ok("key ring", f"{use.key_id} is the newest key")
        elif use.total:
            yield warn(
                "key ring",
                f"{use.total} values are under the older key {use.key_id}",
                "Run: portal keys rotate",
            )
        else:
            cure = "Take it out of PORTAL_ENCRYPTION_KEYS once no backup that you keep needs it"
            yield warn("key ring", f"{use.key_id} is not used any more", cure)
