"""The cluster as a whole: two web processes and two gateways behind nginx, two workers, PostgreSQL
and Redis.

    with cluster() as c:
        c.url                            # nginx; c.web[0].url is one of the two behind it
        c.web[0].kill(); c.web[0].start()
        c.postgres.stop(); c.postgres.start()
        c.portal("audit", "verify")      # a command of an operator

It owns all of its processes and ends them with the block, in whatever state they are.
"""

import base64
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.support.cluster.members import Member, Postgres, Served
from tests.support.cluster.services import make_nginx, make_postgres, make_redis
from tests.support.peers import ROOT, TRUST, Finished, accepts, bare_environment, free_port, run

_PORTAL = (sys.executable, "-m", "portal.cli")


@dataclass(frozen=True)
class Cluster:
    """The members of a running cluster, and how to get in: `admin_key` goes into `Authorization:
    Bearer`."""

    url: str
    nginx: Served
    web: tuple[Served, Served]
    gateways: tuple[Served, Served]
    workers: tuple[Member, Member]
    postgres: Postgres
    redis: Member
    database_url: str
    redis_url: str
    environment: dict[str, str]
    admin_email: str
    admin_password: str
    admin_key: str

    @property
    def members(self) -> tuple[Member, ...]:
        """All of them, what others depend on first."""
        return (self.postgres, self.redis, *self.web, *self.gateways, *self.workers, self.nginx)

    def portal(self, *arguments: str) -> Finished:
        """Run a command of the portal in the environment of its processes."""
        return run([*_PORTAL, *arguments], env=self.environment)


@contextmanager
def cluster(*, port: int | None = None, processes: int = 2, **settings: str) -> Iterator[Cluster]:
    """A cluster that runs while the block does.

    `port` is where nginx listens, a free one by default; `processes` is what each `portal serve`
    forks; `settings` are further `PORTAL_…` variables of all portal processes. Raises
    AssertionError where a member does not start.
    """
    with (
        ExitStack() as running,
        tempfile.TemporaryDirectory(prefix="portal-cluster-", dir="/tmp") as made,
    ):
        folder = Path(made)
        folder.chmod(0o755)  # PostgreSQL and nginx give up root, and have to get to what is theirs
        postgres, database_url = make_postgres(folder)
        running.callback(postgres.end)
        redis, redis_url = make_redis(folder)
        running.callback(redis.end)
        port = port or free_port()
        environment = _environment(database_url, redis_url, f"http://127.0.0.1:{port}", settings)
        web = (_web(1, environment, processes), _web(2, environment, processes))
        gateways = (_gateway(1, environment), _gateway(2, environment))
        ports = [[member.port for member in members] for members in (web, gateways)]
        found = Cluster(
            url=f"http://127.0.0.1:{port}",
            nginx=make_nginx(folder, port, *ports),
            web=web,
            gateways=gateways,
            workers=(_worker(1, environment), _worker(2, environment)),
            postgres=postgres,
            redis=redis,
            database_url=database_url,
            redis_url=redis_url,
            environment=environment,
            admin_email=environment["PORTAL_BOOTSTRAP_ADMIN_EMAIL"],
            admin_password=environment["PORTAL_BOOTSTRAP_ADMIN_PASSWORD"],
            admin_key=environment["PORTAL_BOOTSTRAP_API_KEY"],
        )
        upgraded = found.portal("db", "upgrade")
        assert upgraded.returncode == 0, upgraded.stderr
        others = (*found.web, *found.gateways, *found.workers, found.nginx)
        for member in others:  # all at once, as after a power cut
            running.callback(member.end)
            member.begin()
        for member in others:
            member.wait()
        yield found


def _environment(
    database_url: str, redis_url: str, public_url: str, settings: dict[str, str]
) -> dict[str, str]:
    return bare_environment(
        **{
            "PORTAL_DATABASE_URL": database_url,
            "PORTAL_REDIS_URL": redis_url,
            "PORTAL_PUBLIC_URL": public_url,
            "PORTAL_SECRET_KEY": secrets.token_urlsafe(48),
            "PORTAL_ENCRYPTION_KEYS": "k1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
            "PORTAL_TRUSTED_PROXIES": "127.0.0.1/32",
            "PORTAL_ALLOW_PRIVATE_UPSTREAMS": "true",  # what there is to reach is on this machine
            "PORTAL_BOOTSTRAP_ADMIN_EMAIL": "admin@portal.local",
            "PORTAL_BOOTSTRAP_ADMIN_PASSWORD": secrets.token_urlsafe(15),
            "PORTAL_BOOTSTRAP_API_KEY": f"sk-{secrets.token_urlsafe(32)}",
            "PYTHONUNBUFFERED": "1",
            **settings,
        }
    )


def _web(number: int, environment: dict[str, str], processes: int) -> Served:
    port = free_port()
    argv = [*_PORTAL, "serve", "--port", str(port), "--workers", str(processes)]
    ready = f"http://127.0.0.1:{port}/readyz"

    def is_ready() -> bool:
        return accepts(port) and _answers(ready)

    return Served(f"web-{number}", argv, environment, is_ready, port=port, cwd=ROOT)


def _gateway(number: int, environment: dict[str, str]) -> Served:
    port = free_port()
    argv = [*_PORTAL, "gateway", "--port", str(port)]
    ready = f"http://127.0.0.1:{port}/readyz"
    return Served(
        f"gateway-{number}", argv, environment, lambda: _answers(ready), port=port, cwd=ROOT
    )


def _worker(number: int, environment: dict[str, str]) -> Member:
    return Member(f"worker-{number}", [*_PORTAL, "worker"], environment, lambda: True, cwd=ROOT)


def _answers(address: str) -> bool:
    try:
        return httpx2.get(address, timeout=5, verify=TRUST).status_code == 200
    except httpx2.HTTPError:
        return False
