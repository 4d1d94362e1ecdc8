"""Processes on free loopback ports, stopped by their id, and the resources they use."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from portal.processes.web import WORKER

ROOT = Path(__file__).resolve().parent.parent
# The options of `portal serve`, for an application that it cannot serve.
_GUNICORN = (
    "--workers",
    "1",
    "--threads",
    "8",
    "--worker-class",
    "gthread",
    "--keep-alive",
    "15",
    "--log-level",
    "error",
    "--no-control-socket",
)
_START_SECONDS = 120.0
_STOP_SECONDS = 15.0
_IDLE = 0.05


@dataclass
class Running:
    """A server and its process tree; `apart` is the name of a child that does not serve."""

    port: int
    pid: int
    apart: str | None = WORKER

    def cpu_seconds(self) -> float:
        """Return the CPU time of the serving processes, in seconds."""
        return sum(_cpu(pid) for pid in self._serving())

    def settle(self) -> None:
        """Wait until it is idle after its start, for at most a minute."""
        for _ in range(60):
            before = self.cpu_seconds()
            time.sleep(1)
            if self.cpu_seconds() - before < _IDLE:
                return

    def memory(self, *, everything: bool = False) -> float:
        """Return the resident megabytes of the serving processes, or of all.

        Shared memory counts for each process.
        """
        return sum(_resident(pid) for pid in (tree(self.pid) if everything else self._serving()))

    def _serving(self) -> list[int]:
        return [pid for pid in tree(self.pid) if self.apart is None or _name(pid) != self.apart]


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _cpu(pid: int) -> float:
    total = 0.0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
    return total


def _resident(pid: int) -> float:
    with contextlib.suppress(OSError):
        return (
            int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            * os.sysconf("SC_PAGE_SIZE")
            / 1e6
        )
    return 0.0


def free_port() -> int:
    """Return a free TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without settings of a portal, and with `more`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PORTAL_", "BENCH_"))
    }
    return {**kept, **more}


@contextlib.contextmanager
def process(
    argv: Sequence[str | Path], env: Mapping[str, str], cwd: Path = ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command in its own group within the context; show its output only if it fails."""
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            list(map(str, argv)),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield child
        except BaseException:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace")[-3000:])
            raise
        finally:
            _end(child)


def _end(child: "subprocess.Popen[bytes]") -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_STOP_SECONDS)
            break
    with contextlib.suppress(ProcessLookupError):  # children that outlived it
        os.killpg(child.pid, signal.SIGKILL)


@contextlib.contextmanager
def serving(
    argv: Sequence[str | Path], env: Mapping[str, str], port: int, cwd: Path = ROOT
) -> Iterator[Running]:
    """Run a server within the context; yield it once it accepts connections on `port`."""
    with process(argv, env, cwd) as child:
        end = time.monotonic() + _START_SECONDS
        while not _accepts(port):
            if child.poll() is not None:
                raise RuntimeError(f"{argv!r} ended with {child.returncode} instead of starting")
            if time.monotonic() > end:
                raise RuntimeError(f"{argv!r} did not start in time")
            time.sleep(0.01)
        yield Running(port, child.pid)


@contextlib.contextmanager
def portal(env: Mapping[str, str], *, workers: int = 1, watched: bool = False) -> Iterator[Running]:
    """Run `portal serve` as an operator does; `watched` counts SQL and collector pauses."""
    port = free_port()
    module = "bench.watched" if watched else "portal.cli"
    argv = [sys.executable, "-m", module, "serve", "--port", str(port), "--workers", str(workers)]
    address = {
        "PORTAL_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "PORTAL_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    with serving(argv, environment(**{**address, **env}), port) as running:
        yield running


@contextlib.contextmanager
def bare(env: Mapping[str, str]) -> Iterator[Running]:
    """Run `bench.bare` under gunicorn with the options of `portal serve`."""
    port = free_port()
    argv = [
        sys.executable,
        "-m",
        "gunicorn",
        "--bind",
        f"127.0.0.1:{port}",
        *_GUNICORN,
        "bench.bare:app",
    ]
    with serving(argv, environment(**env), port) as running:
        yield running


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
