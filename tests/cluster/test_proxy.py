"""nginx in front: it spreads requests over the members, and a member may go and come back."""

import re
from collections import Counter

import httpx2
import pytest

from tests.cluster.conftest import ADMIN_KEY
from tests.support.cluster.topology import Cluster


def asked(running: Cluster, times: int) -> list[httpx2.Response]:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    return [httpx2.get(f"{running.url}/v1/me", headers=headers, timeout=30) for _ in range(times)]


@pytest.fixture(autouse=True)
def all_take_part(running: Cluster) -> None:
    """The proxy leaves alone for a moment a member that another test ended."""
    running.nginx.wait_until(
        lambda: len({answer.headers["x-served-by"] for answer in asked(running, 2)}) == 2
    )


def test_requests_are_spread_evenly_over_the_members(running: Cluster) -> None:
    served = Counter(answer.headers["x-served-by"] for answer in asked(running, 20))
    assert served == {f"127.0.0.1:{member.port}": 10 for member in running.web}


def test_the_portal_believes_what_the_proxy_says_of_the_caller(running: Cluster) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "X-Forwarded-For": "192.0.2.7"}
    answer = httpx2.get(f"{running.url}/v1/mcp/network/client-ip", headers=headers, timeout=30)
    assert answer.json() == {"ip": "192.0.2.7"}, (
        "the proxy appends its own caller, which is trusted here"
    )


def test_the_stylesheet_comes_through_compressed_and_is_the_same_from_each_member(
    running: Cluster,
) -> None:
    page = httpx2.get(f"{running.url}/login", timeout=30).text
    [path] = re.findall(r'href="(/static/portal\.[0-9a-f]{12}\.css)"', page)
    answers = [
        httpx2.get(running.url + path, headers={"Accept-Encoding": "gzip"}, timeout=30)
        for _ in range(2)
    ]
    assert len({answer.headers["x-served-by"] for answer in answers}) == 2
    for name, wanted in (
        ("cache-control", "public, max-age=31536000, immutable"),
        ("content-encoding", "gzip"),
        ("vary", "Accept-Encoding"),
    ):
        assert [answer.headers[name] for answer in answers] == [wanted] * 2
    assert len({answer.headers["etag"] for answer in answers}) == 1
    assert answers[0].text == answers[1].text
    held = {"Accept-Encoding": "gzip", "If-None-Match": answers[0].headers["etag"]}
    assert httpx2.get(running.url + path, headers=held, timeout=30).status_code == 304


def test_nobody_notices_a_member_that_is_killed_and_comes_back(running: Cluster) -> None:
    running.web[0].kill()
    assert {answer.status_code for answer in asked(running, 6)} == {200}
    running.web[0].start()
    assert {answer.status_code for answer in asked(running, 6)} == {200}
