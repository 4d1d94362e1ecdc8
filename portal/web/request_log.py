"""Request IDs, access log, metrics and traces of requests, and the Prometheus endpoint."""

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, request
from sqlalchemy.exc import SQLAlchemyError

from portal.domain.addresses import in_ranges
from portal.domain.principals import OPERATOR
from portal.services.operations import backlog
from portal.settings import Settings
from portal.store.database import Database
from portal.telemetry import logs, metrics, traces
from portal.telemetry.traces import SpanKind

if TYPE_CHECKING:
    from prometheus_client import Metric

log = logging.getLogger("portal.access")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}\Z")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/healthz", "/readyz", "/metrics", "/static/<path:filename>"})
_SEEN = "portal.seen"
Start = Callable[..., Any]


def init_app(app: Flask, settings: Settings) -> None:
    """Wrap the application in the `Observed` middleware."""
    if settings.metrics:
        metrics.begin()
    app.wsgi_app = Observed(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign]

    @app.before_request
    def _see() -> None:
        seen = request.environ.setdefault(_SEEN, {"id": secrets.token_hex(6)})
        g.request_id = seen["id"]
        seen["route"] = request.url_rule.rule if request.url_rule else "unknown"
        seen["g"] = g._get_current_object()


class Observed:
    """WSGI middleware that observes requests. It records the route, never the path or query."""

    def __init__(self, inner: Start, trusted_proxies: tuple[str, ...]) -> None:
        self._inner, self._proxies = inner, trusted_proxies

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        began = time.perf_counter()
        id_, parent = self._said(environ)
        seen = environ[_SEEN] = {"id": id_, "route": "unknown", "status": 500, "bytes": None}

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            seen["status"] = int(status[:3])
            seen["bytes"] = next(
                (int(value) for name, value in headers if name.lower() == "content-length"), None
            )
            return start_response(status, [*headers, ("X-Request-ID", id_)], *rest)

        logs.begin_request(id_)
        try:
            with traces.span("request", SpanKind.SERVER, parent=parent) as span:
                answer: Iterable[bytes] = self._inner(environ, start)
                method = _known(environ)
                span.update_name(f"{method} {seen['route']}")
                span.set_attribute("http.route", seen["route"])
                span.set_attribute("http.request.method", method)
                span.set_attribute("http.response.status_code", seen["status"])
                span.set_attribute("portal.request_id", id_)
            return answer
        finally:
            _tell(environ, seen, time.perf_counter() - began)
            logs.end_request()

    def _said(self, environ: dict[str, Any]) -> tuple[str, str | None]:
        """Return request ID and parent span: those of a trusted proxy, else a new ID and None."""
        id_ = environ.get("HTTP_X_REQUEST_ID", "")
        parent = environ.get("HTTP_TRACEPARENT")
        if not (id_ or parent) or not in_ranges(environ.get("REMOTE_ADDR"), self._proxies):
            return secrets.token_hex(6), None
        return id_ if _ID.match(id_) else secrets.token_hex(6), parent


def _tell(environ: dict[str, Any], seen: dict[str, Any], seconds: float) -> None:
    method = _known(environ)
    route = seen["route"]
    status = seen["status"]
    metrics.count("portal_http_requests_total", method, route, f"{status // 100}xx")
    metrics.observe("portal_http_request_seconds", seconds, route)
    level = logging.DEBUG if route in _QUIET and status < 500 else logging.INFO
    if not log.isEnabledFor(level):
        return
    of_flask = seen.get("g")
    principal = of_flask.get("principal") if of_flask is not None else None
    kind = "nobody"
    if principal is not None:
        kind = "key" if principal.key_id else "person"
    told = {
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "bytes": seen["bytes"],
        "address": of_flask.get("address") if of_flask is not None else environ.get("REMOTE_ADDR"),
        "principal": kind,
        "user_id": principal and principal.user_id,
        "key_id": principal and principal.key_id,
    }
    log.log(
        level, "request", extra={name: value for name, value in told.items() if value is not None}
    )


def _known(environ: dict[str, Any]) -> str:
    """Return the method, or `OTHER` if unknown, to limit the labels in Prometheus."""
    method = environ["REQUEST_METHOD"]
    return method if method in _METHODS else "OTHER"


class Waiting:
    """Collector of the backlog in the database, with three queries per scrape."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> "Iterator[Metric]":
        """Yield the gauges of the kind `Asked`."""
        from prometheus_client.core import GaugeMetricFamily

        try:
            with self._database.session() as session:
                found = backlog.count_waiting(session, OPERATOR)
        except (SQLAlchemyError, OSError):
            told: dict[str, float] = {"portal_database_answers": 0}
        else:
            told = {
                "portal_database_answers": 1,
                "portal_probes_due": found.probes,
                "portal_probes_oldest_due_seconds": found.oldest_probe_seconds,
                "portal_sign_ins_due": found.sign_ins,
                "portal_submissions_waiting": found.submissions,
            }
        for name, value in told.items():
            yield GaugeMetricFamily(name, metrics.MEASURES[name].help, value)


def show_metrics(database: Database) -> Response:
    """Return the metrics for Prometheus."""
    text, media_type = metrics.exposition([Waiting(database)])
    return Response(text, content_type=media_type)
