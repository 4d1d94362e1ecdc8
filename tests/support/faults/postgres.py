"""A PostgreSQL of one test alone, to be stopped and started again."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.peers import free_port, unavailable


class OwnPostgres:
    """A cluster in `folder`, which has to be reachable for the user `postgres`: root may not run
    one."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            unavailable("PostgreSQL")
        self._bin, self._data, self._port = found[-1].parent, folder / "data", free_port()
        self.url = f"postgresql://portal@127.0.0.1:{self._port}/postgres"
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        self._run(
            "initdb",
            "-D",
            self._data,
            "-U",
            "portal",
            "--auth=trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-N",
        )

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = (
            f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c"
            " fsync=off"
        )
        self._run(
            "pg_ctl", "-D", self._data, "-w", "-l", self._data / "log", "-o", options, "start"
        )

    def stop(self) -> None:
        """End it at once, as when the machine goes: what was committed is recovered at the next
        start."""
        if not (self._data / "postmaster.pid").exists():
            return
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str | Path) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        argv = [*user, self._bin / program, *arguments]
        subprocess.run(
            argv, cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


@contextmanager
def own_postgres(folder: Path) -> Iterator[OwnPostgres]:
    """A started one; it is ended afterwards."""
    postgres = OwnPostgres(folder)
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()
