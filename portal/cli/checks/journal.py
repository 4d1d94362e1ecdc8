"""The revocation journal: whether it is valid, and whether everything is dormant."""

from collections.abc import Iterator

from portal.cli.checks.findings import Finding, Surroundings, bad, ok
from portal.domain.principals import OPERATOR
from portal.services.audit import verification
from portal.services.operations import revocations


def is_whole(around: Surroundings) -> Iterator[Finding]:
    """Check the journal, and report the consequences."""
    with around.database.session() as session:
        fault = revocations.fault_of_journal(session, OPERATOR)
        because = revocations.dormant_because(session, OPERATOR)
        lost = verification.list_unaccepted(session, OPERATOR)
    if fault:
        yield bad(
            "revocation journal",
            fault,
            "Put it back before the next start, which otherwise makes all API keys dormant; see"
            " docs/backup-and-keys.md",
        )
    else:
        yield ok("revocation journal", "it is valid")
    for _, note in lost:
        what, _, cure = note.partition(". ")
        yield bad("audit log", what, cure)
    if because:
        yield bad(
            "API keys",
            f"they are dormant: {because}",
            "Review keys and users, then run: portal keys wake",
        )
