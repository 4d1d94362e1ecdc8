"""Commands on this host: whether they can run, as which user, and how they are isolated."""

from collections.abc import Iterator

from portal.app import sandbox_of
from portal.cli.checks.findings import Finding, Surroundings, bad, ok, warn
from portal.upstream.sandbox import LIMITS

_NAME = "commands"


def sandboxed(around: Surroundings) -> Iterator[Finding]:
    """Check that commands run in a sandbox, and what it hides, by starting one."""
    settings = around.settings
    if not settings.enable_stdio:
        yield ok(_NAME, "disabled (PORTAL_ENABLE_STDIO)")
        return
    sandbox = sandbox_of(settings)
    if refusal := sandbox.refusal():
        what, _, cure = refusal.partition(". ")
        yield bad(
            _NAME,
            f"they cannot run: {what[0].lower()}{what[1:]}",
            cure.rstrip(".") or "Disable them",
        )
        return
    whose = (
        "not the portal's user" if sandbox.separate else "the portal's user, in a user namespace"
    )
    yield ok(_NAME, f"run as {sandbox.user}, {whose}")
    yield ok(
        _NAME, "cannot see processes of the portal or of other commands (PID and IPC namespaces)"
    )
    yield ok(
        _NAME, "cannot see files of the portal; the system and PATH are read-only (mount namespace)"
    )
    yield ok(_NAME, f"have at most {LIMITS['nproc']} processes, and cannot gain privileges")
    if sandbox.keeps_homes():
        yield ok(_NAME, "each saved server has its own persistent home folder")
    else:
        cure = "Set PORTAL_STDIO_HOMES to a folder that the portal can write to"
        yield warn(
            _NAME, "their home folders are in memory: npx and uvx download at each start", cure
        )
    if left := sandbox.left_homes():
        cure = f"Delete them as root: {', '.join(str(path) for path in left[:3])}"
        yield warn(
            _NAME, f"{len(left)} home folders of deleted commands could not be removed", cure
        )
    yield ok(_NAME, "can reach the network of this host, including its loopback interface")
