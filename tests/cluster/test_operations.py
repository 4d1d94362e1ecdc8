"""What `docs/backup-and-keys.md` tells an operator to do, on a cluster of its own: it changes what
all others use.

Every process is restarted four times, so it is for `make cluster-test` alone.
"""

import base64
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator

import httpx2
import pytest

from tests.support.cluster.topology import Cluster, cluster

pytestmark = pytest.mark.skipif(
    "CLUSTER_IN_FULL" not in os.environ,
    reason="takes a minute of restarts: run `make cluster-test`",
)
SERVER = {"server_name": "docs", "transport": "http", "url": "http://127.0.0.1:9/SECRET-path/mcp"}


@pytest.fixture(scope="module")
def started() -> Iterator[Cluster]:
    with cluster(processes=1) as running:
        assert ask(running).post("/v1/mcp/server", json=SERVER).status_code == 201
        yield running


def ask(running: Cluster) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {running.admin_key}"}
    return httpx2.Client(base_url=running.url, headers=headers, timeout=60)


def restart_with(running: Cluster, ring: str) -> None:
    """One after the other, as the two rounds of the document say."""
    for member in (*running.web, *running.workers):
        member.stop()
        member.environment["PORTAL_ENCRYPTION_KEYS"] = ring
        member.start()
    running.environment["PORTAL_ENCRYPTION_KEYS"] = ring


def urls(running: Cluster) -> list[str]:
    return [server["url"] for server in ask(running).get("/v1/mcp/server").json()]


def test_r_sec_10_the_key_is_changed_while_the_cluster_serves(started: Cluster) -> None:
    old = started.environment["PORTAL_ENCRYPTION_KEYS"]
    new = "k2:" + base64.b64encode(secrets.token_bytes(32)).decode()
    answers = []
    done = threading.Event()

    def go_on() -> None:
        while not done.wait(0.2):
            answers.append(urls(started))

    asking = threading.Thread(target=go_on)
    asking.start()
    try:
        for ring in (f"{old},{new}", f"{new},{old}"):
            restart_with(started, ring)
        rotated = started.portal("keys", "rotate")
        verified = started.portal("keys", "status", "--verify")
        restart_with(started, new)
    finally:
        done.set()
        asking.join()
    assert rotated.returncode == 0, rotated.stderr
    assert verified.returncode == 0, verified.stdout
    assert answers
    assert all(found == [SERVER["url"]] for found in answers), (
        "no request failed, and none read it as not set"
    )
    assert urls(started) == [SERVER["url"]], "the new key alone opens it"


def test_r_br_02_what_was_dumped_is_restored(started: Cluster, tmp_path: object) -> None:
    url = started.database_url
    dump = f"{tmp_path}/portal.dump"

    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    run(
        "pg_dump",
        "--format=custom",
        "--exclude-schema=portal_journal",
        f"--file={dump}",
        f"--dbname={url}",
    )
    late = ask(started).post("/v1/mcp/server", json=SERVER | {"server_name": "late"})
    assert late.status_code == 201
    members = (*started.web, *started.workers)
    for member in members:
        member.stop()
    run("pg_restore", "--clean", "--if-exists", "--single-transaction", dump, f"--dbname={url}")
    for command in (("db", "upgrade"), ("audit", "verify")):
        finished = started.portal(*command)
        assert finished.returncode == 0, finished.stderr
    for member in members:
        member.start()
    assert urls(started) == [SERVER["url"]]
