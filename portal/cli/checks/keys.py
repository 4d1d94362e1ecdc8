"""The key ring: whether it decrypts stored secrets, and what is left to rotate."""

from collections.abc import Iterator

from portal.cli.checks.findings import Finding, Surroundings, bad, ok, warn
from portal.domain.principals import OPERATOR
from portal.services.secrets import rotation


def opens(around: Surroundings) -> Iterator[Finding]:
    """Check that stored secrets can be decrypted, and report their keys."""
    with around.database.session() as session:
        uses = rotation.count_values(session, OPERATOR)
        opens = rotation.opens_something(session, OPERATOR)
    if any(use.stored for use in uses) and not opens:
        yield bad(
            "key ring",
            "it cannot decrypt any stored secret",
            "Set the correct keys in PORTAL_ENCRYPTION_KEYS",
        )
        return
    for use in uses:
        if use.key_id == rotation.BROKEN:
            yield bad(
                "key ring",
                f"{use.total} values are damaged",
                "portal keys status --verify lists them; set them again",
            )
        elif not use.in_ring:
            cure = (
                f"Add {use.key_id} to PORTAL_ENCRYPTION_KEYS, or set again what portal keys"
                " status --verify lists"
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
            cure = "Remove it from PORTAL_ENCRYPTION_KEYS once no backup needs it"
            yield warn("key ring", f"{use.key_id} is no longer used", cure)
