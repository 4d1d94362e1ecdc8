"""What a signal does to the processes of `portal serve`, and what they share: nothing (R-MP-07)."""

import signal
import threading
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from sqlalchemy import text, update

from portal.store.database import Database
from portal.store.models import Server, now
from tests.cluster.conftest import ADMIN_KEY
from tests.conftest import Write
from tests.support.cluster.topology import Cluster
from tests.support.cluster.upstream import upstreams
from tests.support.factories import make_server
from tests.support.peers import TRUST, accepts

BY_ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def sockets(pid: int) -> set[str]:
    """The inodes of its sockets."""
    links = [
        link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()
    ]
    return {
        name.removeprefix("socket:[").rstrip("]") for name in links if name.startswith("socket:")
    }


def connected_to(*urls: str) -> set[str]:
    """The inodes of all sockets on this machine that are connected to the ports of these
    addresses."""
    ports = {f"{urlsplit(url).port:04X}" for url in urls}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[9] for line in lines if line[2].rpartition(":")[2] in ports and line[3] == "01"}


def test_no_two_processes_share_a_connection(running: Cluster) -> None:
    for member in running.web:
        for _ in range(8):
            assert (
                httpx2.get(f"{member.url}/v1/me", headers=BY_ADMIN, timeout=30).status_code == 200
            )
    outside = connected_to(running.database_url, running.redis_url)
    for member in running.web:
        held = [sockets(pid) & outside for pid in sorted(children(member.pid))]
        assert any(held), "they do ask the database"
        assert not sockets(member.pid) & outside, (
            "the master holds none that its children could inherit"
        )
        assert sum(map(len, held)) == len(set().union(*held))


def test_the_portal_serves_on_the_schema_of_the_next_version(
    running: Cluster, database: Database
) -> None:
    with database.engine.begin() as connection:
        [at] = connection.execute(text("select version_num from alembic_version")).one()
        connection.execute(text("update alembic_version set version_num = '9999'"))
    try:
        for member in running.web:
            assert httpx2.get(f"{member.url}/readyz", timeout=30).status_code == 200
        assert running.portal("audit", "verify").returncode == 0
    finally:
        with database.engine.begin() as connection:
            connection.execute(text("update alembic_version set version_num = :at"), {"at": at})


def test_sighup_makes_the_processes_anew(running: Cluster) -> None:
    member = running.web[0]
    old = children(member.pid)
    member.signal(signal.SIGHUP)
    member.wait_until(lambda: len(children(member.pid) - old) == len(old))
    assert httpx2.get(f"{member.url}/v1/me", headers=BY_ADMIN, timeout=30).status_code == 200
    member.wait_until(lambda: not children(member.pid) & old)
    assert httpx2.get(f"{member.url}/v1/me", headers=BY_ADMIN, timeout=30).status_code == 200


def test_a_request_that_is_under_way_is_answered_before_the_portal_ends(
    running: Cluster, write: Write
) -> None:
    member = running.web[1]
    with upstreams() as upstream:
        upstream.answers.clear()
        with write() as session:
            make_server(session, "slow", url=upstream.url("slow"))
            session.execute(
                update(Server).values(probe_due_at=now() + timedelta(hours=1))
            )  # no worker's turn
        found: list[httpx2.Response] = []
        url = f"{member.url}/v1/mcp/server/id-slow"
        client = httpx2.Client(headers=BY_ADMIN, timeout=60, verify=TRUST)
        assert client.get(f"{member.url}/healthz").status_code == 200  # it is connected from here
        asking = threading.Thread(target=lambda: found.append(client.get(url)))
        asking.start()
        assert upstream.until(lambda: upstream.asked["slow", "server/discover"] == 1)
        member.signal(signal.SIGTERM)
        member.wait_until(lambda: not accepts(member.port))
        assert httpx2.get(f"{running.url}/v1/me", headers=BY_ADMIN, timeout=30).status_code == 200
        upstream.answers.set()
        asking.join(60)
        client.close()
    assert found[0].status_code == 200
    assert member.stop() == 0
    member.start()
