"""Commands on this host: whether they can run, as whom, and apart from what."""

from collections.abc import Iterator

from portal.app import sandbox_of
from portal.cli.checks.findings import Finding, Surroundings, bad, ok, warn
from portal.upstream.sandbox import LIMITS

_NAME = "commands"


def sandboxed(around: Surroundings) -> Iterator[Finding]:
    """Whether commands run in a sandbox, and what it keeps from them. A command is started to find
    out."""
    settings = around.settings
    if not settings.enable_stdio:
        yield ok(_NAME, "off (PORTAL_ENABLE_STDIO)")
        return
    sandbox = sandbox_of(settings)
    if refusal := sandbox.refusal():
        what, _, cure = refusal.partition(". ")
        yield bad(
            _NAME,
            f"none can run: {what[0].lower()}{what[1:]}",
            cure.rstrip(".") or "Switch them off",
        )
        return
    whose = (
        "another user than the portal's"
        if sandbox.separate
        else "the portal's user, in a user namespace"
    )
    yield ok(_NAME, f"run as {sandbox.user}, {whose}")
    yield ok(_NAME, "see no process of the portal or of other commands (PID and IPC namespaces)")
    yield ok(
        _NAME, "see no file of the portal; the system and PATH are read-only (mount namespace)"
    )
    yield ok(_NAME, f"have at most {LIMITS['nproc']} processes, and gain no rights")
    if sandbox.keeps_homes():
        yield ok(_NAME, "each saved server keeps a home folder of its own")
    else:
        cure = "Set PORTAL_STDIO_HOMES to a folder that the portal may write in"
        yield warn(
            _NAME, "their home folders are in memory: npx and uvx download at each start", cure
        )
    if left := sandbox.left_homes():
        cure = f"Delete them as root: {', '.join(str(path) for path in left[:3])}"
        yield warn(
            _NAME, f"{len(left)} home folders of commands that are gone could not be deleted", cure
        )
    yield ok(_NAME, "reach the network of this host, its loopback included")
