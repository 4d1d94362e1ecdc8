"""MCP servers that run as a command on this host (MCP 2026-07-28, transports, stdio).

Disabled unless the operator enables it. Commands must be on an allow list, without a path. They run
without a shell, in a sandbox with an environment without secrets of the portal, and all their
processes are ended.
"""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import Any, cast

import anyio
from pydantic import ValidationError

from portal.domain.errors import UpstreamFailure
from portal.domain.servers import is_unsafe_variable
from portal.domain.upstream import HealthReason, Target
from portal.upstream.json_text import MAX_VALUES, check_value_count
from portal.upstream.sandbox import Launch, NoSandbox, Sandbox

DEFAULT_COMMANDS = frozenset({"npx", "uvx", "python", "python3", "node", "docker", "deno"})
MAX_LINE_BYTES = 10 * 1024 * 1024
HOME_LOOKS = 1.0  # seconds between two checks of the size of a home folder
GRACE = 1.0  # seconds for a command to exit by itself
_LOOKS = 1000  # until a process has stopped, which takes microseconds

log = logging.getLogger("portal.stdio")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def checked_command(target: Target, allowed: frozenset[str], sandbox: Sandbox) -> Launch:
    """Return how to start `target` in the sandbox.

    Raises `UpstreamFailure`: `blocked` for a command, argument or variable that is not allowed,
    `refused` for a command that is not installed, `disabled` if the sandbox is not available.
    """
    if target.command not in allowed or "/" in target.command:
        raise UpstreamFailure(
            "The operator does not allow this command.",
            reason=HealthReason.BLOCKED,
        )
    if any("\0" in argument for argument in target.args):
        raise UpstreamFailure(
            f"An argument of {target.label} contains a NUL character.", reason=HealthReason.BLOCKED
        )
    path = shutil.which(target.command)
    if path is None:
        raise UpstreamFailure(
            f"The command {target.label} is not installed on this host.",
            reason=HealthReason.REFUSED,
        )
    _check_environment(target.env)
    try:
        return sandbox.launch([path, *target.args], target.env, home=target.home)
    except NoSandbox as error:
        raise UpstreamFailure(str(error), reason=HealthReason.DISABLED) from None


def _check_environment(given: Mapping[str, str]) -> None:
    for name, value in given.items():
        if not _ENV_NAME.fullmatch(name) or is_unsafe_variable(name) or "\0" in value:
            raise UpstreamFailure(
                "An environment variable of the command is not allowed.",
                reason=HealthReason.BLOCKED,
            )


@contextlib.asynccontextmanager
async def stdio_streams(launch: Launch) -> AsyncIterator[tuple[Any, Any]]:
    """Run a command and yield its message streams (in, out) for the SDK's `Client`.

    The SDK's own stdio transport passes on more of the environment, and may take 6 s to stop an
    unresponsive command. Raises `OSError` if the command cannot be started.
    """
    from mcp.shared.message import SessionMessage

    process = await _started(launch)
    inbox, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, outbox = anyio.create_memory_object_stream[SessionMessage](0)
    polite = False
    try:
        async with anyio.create_task_group() as group, inbox, received, outgoing, outbox:
            group.start_soon(_read, process, inbox)
            group.start_soon(_write, process, outbox)
            group.start_soon(_watch_home, process, launch)
            yield received, outgoing
            polite = True
            group.cancel_scope.cancel()
    finally:
        await _to_the_end(_clean_up(process, launch, polite=polite))


async def _started(launch: Launch) -> Process:
    """Start a command.

    If the caller is canceled meanwhile, ends the command: asyncio would only kill the sandbox, and
    not what that has just started.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *launch.argv,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=launch.env,
            start_new_session=True,
            limit=MAX_LINE_BYTES,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True), contextlib.suppress(OSError):
            await _clean_up(await starting, launch, polite=False)
        raise


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for `work`, which is not interrupted if the caller is canceled."""
    working = asyncio.ensure_future(work)
    with anyio.CancelScope(shield=True):
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:  # of the task, which no scope shields
            await working
            raise


async def _clean_up(process: Process, launch: Launch, *, polite: bool) -> None:
    """End a command, and delete a home folder that it overfilled."""
    await _end(process, polite=polite)
    if await asyncio.to_thread(launch.overfills_home):
        log.warning(
            "deleted the home folder %s of a command, which exceeded its size limit", launch.home
        )
        await asyncio.to_thread(launch.delete_home)


async def _read(process: Process, inbox: Any) -> None:
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter

    stdout = cast("asyncio.StreamReader", process.stdout)
    # ValueError: a line exceeded the limits. Closing the inbox ends the session.
    async with inbox:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, ValueError):
            while line := await stdout.readline():
                if len(line) > MAX_VALUES:
                    await asyncio.to_thread(check_value_count, line)
                # Other output on stdout is not MCP, but common.
                with contextlib.suppress(ValidationError):
                    await inbox.send(
                        SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
                    )


async def _watch_home(process: Process, launch: Launch) -> None:
    """End a command that overfills its home folder. Checks use at most 10 % of the time."""
    wait = HOME_LOOKS
    while launch.home is not None:
        await anyio.sleep(wait)
        began = anyio.current_time()
        if await asyncio.to_thread(launch.overfills_home):
            _kill(process)
            return
        wait = max(HOME_LOOKS, 10 * (anyio.current_time() - began))


async def _write(process: Process, outbox: Any) -> None:
    stdin = cast("asyncio.StreamWriter", process.stdin)
    async with outbox:
        with contextlib.suppress(OSError):  # the command exited, which its closed stdout reports
            async for item in outbox:
                stdin.write(
                    item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
                )
                await stdin.drain()


async def _end(process: Process, *, polite: bool) -> None:
    """End the command and all its processes, by closing stdin and then by SIGKILL."""
    cast("asyncio.StreamWriter", process.stdin).close()
    if polite:
        await _wait(process)
    _kill(process)
    await _wait(process)
    # A descendant outside of the group may keep the pipe open. asyncio has no public method to
    # close it.
    process._transport.close()  # type: ignore[attr-defined]


async def _wait(process: Process) -> None:
    with anyio.move_on_after(GRACE):
        await process.wait()


def _kill(process: Process) -> None:
    """Kill a command and all its processes.

    The child of the sandbox is the first process of a namespace, which ends with it. The sandbox is
    stopped before, because while it starts, its child has left the group but does not end with it.
    """
    _signal_group(process, signal.SIGSTOP)
    for pid in _children(process.pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    _signal_group(process, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    """Return the children of a process that is about to stop, once it has stopped."""
    with contextlib.suppress(OSError):
        for _ in range(_LOOKS):
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
            if state.split()[0] in "TtZX":
                break
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [int(child) for child in found.split()]
    return []


def _signal_group(process: Process, which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, which)  # the group ID is the PID of its leader (start_new_session)
