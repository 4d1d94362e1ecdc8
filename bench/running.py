"""Applications under gunicorn, each a single process with the flags of `portal serve`, on free loopback ports."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


@contextlib.contextmanager
def running(app: str, environment: Mapping[str, str]) -> Iterator[int]:
    """Serve `app` (`module:name`) while the context lasts; yields its port once it accepts connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PORTAL_")}
    flags = ("--workers", "1", "--threads", "8", "--worker-class", "gthread", "--keep-alive", "60")
    quiet = ("--log-level", "error", "--no-control-socket")
    child = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *flags, *quiet, app],
        cwd=ROOT, env={**inherited, "PORTAL_PUBLIC_URL": f"http://127.0.0.1:{port}", **environment},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(child, port)
        yield port
    finally:
        child.terminate()
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait_for(child: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise SystemExit(f"gunicorn ended with {child.wait(0.05)} instead of starting")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
    raise SystemExit("gunicorn did not start in time")
