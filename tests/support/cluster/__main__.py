"""`make cluster`: runs until Ctrl-C."""

import argparse
import signal
import sys
from types import FrameType

from tests.support.cluster.topology import Cluster, cluster

_ENDS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
)  # the end of the terminal is an orderly end, too


def main() -> None:
    """Start the cluster, say how to get in, and wait."""
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="where nginx listens (8000)")
    port = parser.parse_args().port
    for name in _ENDS:
        signal.signal(name, _interrupt)
    try:
        with cluster(port=port) as running:
            _tell(running)
            signal.pause()
    except KeyboardInterrupt:
        sys.stdout.write("· ended\n")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for name in _ENDS:
        signal.signal(name, signal.SIG_IGN)  # impatience must not leave processes behind
    raise KeyboardInterrupt


def _tell(running: Cluster) -> None:
    lines = [
        "",
        f"  Sign in at   {running.url}/login",
        f"  Email        {running.admin_email}",
        f"  Password     {running.admin_password}",
        f"  API key      {running.admin_key}",
        "",
    ]
    lines += [
        f"  {member.name:<12} {member.pid:>7}  {getattr(member, 'url', '')}"
        for member in running.members
    ]
    lines += [f"  {'database':<12} {running.database_url}", "", "  Ctrl-C ends all of it.", ""]
    sys.stdout.write("\n".join(lines))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
