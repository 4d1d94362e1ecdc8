"""PostgreSQL, Redis and nginx of a cluster: Debian's programs on free loopback ports, in a folder
of the cluster's."""

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import psycopg
import redis

from tests.support.cluster.members import Member, Postgres, Served
from tests.support.peers import ROOT, accepts, bare_environment, free_port, run, unavailable

_CONFIG = ROOT / "deploy" / "nginx" / "nginx.conf"
_NGINX = Path("/usr/sbin/nginx")
# No fsync: what is acknowledged survives the end of the server all the same, if not a power cut.
_POSTGRES = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
}


def make_postgres(folder: Path) -> tuple[Postgres, str]:
    """A PostgreSQL with an empty database, running, and the database's URL."""
    programs = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name)
    )
    if not programs:
        unavailable("PostgreSQL")
    home = folder / "postgres"
    home.mkdir()
    as_owner: list[str | Path] = []
    if os.getuid() == 0:  # it refuses to run as root
        shutil.chown(home, "postgres", "postgres")
        as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    made = run(
        [
            *as_owner,
            programs[-1] / "initdb",
            "-D",
            home / "data",
            "-U",
            "portal",
            "--auth=trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ],
        env=bare_environment(),
        cwd=home,
    )
    assert made.returncode == 0, made.stderr
    port = free_port()
    options = {**_POSTGRES, "port": str(port), "unix_socket_directories": str(home)}
    server = f"postgresql://portal@127.0.0.1:{port}"
    argv = [*as_owner, programs[-1] / "postgres", "-D", home / "data"]
    argv += [f"--{name}={value}" for name, value in options.items()]
    member = Postgres(
        "postgres",
        argv,
        bare_environment(),
        lambda: _opens(server),
        ends_at=signal.SIGINT,
        cwd=home,
    )
    member.start()
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute("create database portal")
    return member, f"{server}/portal"


def make_redis(folder: Path) -> tuple[Member, str]:
    """A Redis that keeps nothing on disk, running, and its URL."""
    program = shutil.which("redis-server") or unavailable("Redis")
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    member = Member("redis", argv, bare_environment(), lambda: _pings(url), cwd=folder)
    member.start()
    return member, url


def make_nginx(folder: Path, port: int, portals: list[int], gateways: list[int]) -> Served:
    """An nginx, not started yet, before `portals` and `gateways`; its answers tell by `X-Served-By`
    which of them it asked."""
    if not _NGINX.exists():
        unavailable("nginx")
    home = folder / "nginx"
    home.mkdir()
    shutil.copy(_CONFIG, home)
    for name, ports in (("members.conf", portals), ("gateways.conf", gateways)):
        lines = [f"server 127.0.0.1:{member} fail_timeout=2s;\n" for member in ports]
        (home / name).write_text("".join(lines))
    (home / "listen.conf").write_text(
        f"listen 127.0.0.1:{port};\nadd_header X-Served-By $upstream_addr always;\n"
    )
    argv: list[str | Path] = [_NGINX, "-p", home, "-c", home / "nginx.conf", "-g", "daemon off;"]
    return Served(
        "nginx",
        argv,
        bare_environment(),
        lambda: accepts(port),
        port=port,
        ends_at=signal.SIGQUIT,
        cwd=home,
    )


def _opens(server: str) -> bool:
    with (
        suppress(psycopg.OperationalError),
        psycopg.connect(f"{server}/postgres", connect_timeout=2),
    ):
        return True
    return False


def _pings(url: str) -> bool:
    with suppress(redis.RedisError), redis.Redis.from_url(url) as client:
        return bool(client.ping())
    return False
