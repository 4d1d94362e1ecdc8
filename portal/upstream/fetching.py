"""GET of a small document for synchronous callers."""

from collections.abc import Mapping

import httpx2

from portal.domain.upstream import OutboundPolicy, Target
from portal.upstream.checks import checked_url
from portal.upstream.faults import fault_of_network
from portal.upstream.guard import guarded_client
from portal.upstream.loop import run

_OVERTIME = 2.0


def fetch(
    policy: OutboundPolicy,
    url: str,
    *,
    timeout: float,
    max_bytes: int,
    headers: Mapping[str, str] | None = None,
    follow_redirects: bool = True,
) -> tuple[int, bytes]:
    """GET `url` within `timeout` seconds, and return status and body of at most `max_bytes`.

    Raises `UpstreamFailure`.
    """
    return run(
        _fetched(policy, url, timeout, max_bytes, headers, follow_redirects), timeout + _OVERTIME
    )


async def _fetched(
    policy: OutboundPolicy,
    url: str,
    timeout: float,
    max_bytes: int,
    headers: Mapping[str, str] | None,
    follow_redirects: bool,
) -> tuple[int, bytes]:
    try:
        async with guarded_client(
            policy,
            headers=headers,
            timeout=timeout,
            max_bytes=max_bytes,
            follow_redirects=follow_redirects,
        ) as http:
            response = await http.get(checked_url(url))
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as fault:
        raise fault_of_network(Target("http", url=url), fault, None, timeout).as_failure() from None
    return response.status_code, response.content
