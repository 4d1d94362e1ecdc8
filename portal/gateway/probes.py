"""Health, readiness and metrics of a gateway process, for load balancers and Prometheus."""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus

from portal.gateway.errors import Reply, no_such_method
from portal.telemetry import metrics

PATHS = ("/healthz", "/readyz", "/metrics")
"""Paths of the probes. No gateway address has these paths, since all of them contain `mcp`."""


class Probes:
    """Answers probes, which need no credential and come to any host."""

    def __init__(self, fault: Callable[[], str | None], *, shows_metrics: bool) -> None:
        """Use `fault`, which returns why the database cannot serve this process, or None."""
        self._fault, self._shows_metrics = fault, shows_metrics
        self.is_stopping = False

    async def reply(self, method: str, path: str) -> Reply:
        """Return the reply to a request for one of `PATHS`."""
        if method not in ("GET", "HEAD"):
            return no_such_method("GET, HEAD")
        if path == "/healthz":
            return _told(HTTPStatus.OK, {"status": "ok"})
        if path == "/readyz":
            return await self._readiness()
        if not self._shows_metrics:
            return Reply(HTTPStatus.NOT_FOUND)
        text, media_type = metrics.exposition()
        return Reply(HTTPStatus.OK, text, {"content-type": media_type}, outcome="ok")

    async def _readiness(self) -> Reply:
        if self.is_stopping:
            return _told(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "stopping"})
        fault = await asyncio.to_thread(self._fault)
        if fault is None:
            return _told(HTTPStatus.OK, {"status": "ok", "database": "ok"})
        told = {"status": "unavailable", "database": fault}
        return _told(HTTPStatus.SERVICE_UNAVAILABLE, told)


def _told(status: int, told: dict[str, str]) -> Reply:
    outcome = "ok" if status == HTTPStatus.OK else "failed"
    return Reply(status, json.dumps(told).encode(), outcome=outcome)
