"""Metrics for Prometheus. Before `begin`, nothing is counted and the library is not loaded.

Labels never identify a server, user or key, since their number is unlimited and names are private.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.registry import Collector, CollectorRegistry

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # a variable of the library
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

SECURITY = (
    "sign_in_failed",
    "key_refused",
    "forbidden",
    "csrf_refused",
    "rate_limited",
    "decrypt_failed",
    "code_refused",
    "address_blocked",
    "audit_failed",
    "journal_failed",
)
"""The values of `event` of `portal_security_events_total`."""


@dataclass(frozen=True)
class Measure:
    """A metric.

    `kind` is a class of prometheus_client, or `Asked` for values read from the database at each
    scrape. `mode` is how gauges of several processes are combined.
    """

    kind: str
    help: str
    labels: tuple[str, ...] = ()
    mode: str = "livesum"


MEASURES = {
    "portal_http_requests_total": Measure(
        "Counter", "HTTP requests.", ("method", "route", "status")
    ),
    "portal_http_request_seconds": Measure("Histogram", "Duration of HTTP requests.", ("route",)),
    "portal_upstream_calls_total": Measure(
        "Counter", "Requests to upstreams.", ("kind", "outcome")
    ),
    "portal_upstream_call_seconds": Measure(
        "Histogram", "Duration of requests to upstreams.", ("kind",)
    ),
    "portal_token_refreshes_total": Measure(
        "Counter", "Refreshed OAuth tokens of servers.", ("outcome",)
    ),
    "portal_security_events_total": Measure(
        "Counter", "Security events: refusals and errors to monitor.", ("event",)
    ),
    "portal_database_failures_total": Measure("Counter", "Failed database operations.", ("error",)),
    "portal_database_connections_in_use": Measure("Gauge", "Database connections in use."),
    "portal_redis_away": Measure(
        "Gauge", "1 while Redis is unavailable and rate limits are per process.", mode="livemax"
    ),
    "portal_calls_unlogged_total": Measure(
        "Counter", "Calls missing in the log of calls, because the database did not keep up."
    ),
    "portal_worker_rounds_total": Measure("Counter", "Worker cycles.", ("outcome",)),
    "portal_probes_due": Measure("Asked", "Servers due for a health check."),
    "portal_probes_oldest_due_seconds": Measure("Asked", "Age of the oldest due health check."),
    "portal_sign_ins_due": Measure("Asked", "OAuth tokens due for a refresh at the next call."),
    "portal_submissions_waiting": Measure("Asked", "Submissions and changes waiting for review."),
    "portal_database_answers": Measure(
        "Asked", "1 if the database responded to this scrape, else 0."
    ),
}

_live: dict[str, Any] = {}
_own_registry: "list[CollectorRegistry]" = []


def begin() -> None:
    """Start counting, in files shared by all processes if `shared_folder` is active.

    The library is imported here, since it decides at import where to store values.
    """
    if _live:
        return
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    _own_registry.append(registry)
    for name, measure in MEASURES.items():
        if measure.kind == "Asked":
            continue
        more: dict[str, Any] = {
            "Histogram": {"buckets": _BUCKETS},
            "Gauge": {"multiprocess_mode": measure.mode},
        }
        make = getattr(prometheus_client, measure.kind)
        _live[name] = make(
            name, measure.help, measure.labels, registry=registry, **more.get(measure.kind, {})
        )
    for event in SECURITY:  # starts at zero, so that the first event is an increase
        _live["portal_security_events_total"].labels(event)


def count(name: str, *labels: str) -> None:
    """Increment the counter `name` with its label values in order."""
    if (live := _live.get(name)) is not None:
        (live.labels(*labels) if labels else live).inc()


def security(event: str) -> None:
    """Count a security event."""
    count("portal_security_events_total", event)


def observe(name: str, seconds: float, *labels: str) -> None:
    """Record a duration in seconds."""
    if (live := _live.get(name)) is not None:
        live.labels(*labels).observe(seconds)


def move(name: str, by: int) -> None:
    """Change a gauge by a number."""
    if (live := _live.get(name)) is not None:
        live.inc(by)


@contextmanager
def shared_folder(*, wanted: bool) -> Iterator[None]:
    """Provide a folder for the metrics of all processes, and delete it at the end.

    A forked process leaves the context, too, when it ends; it does not delete the folder.
    """
    if not wanted:
        yield
        return
    folder = os.environ[_FOLDER] = tempfile.mkdtemp(prefix="portal-metrics-")
    owner = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == owner:
            del os.environ[_FOLDER]
            shutil.rmtree(folder, ignore_errors=True)


def forget_process(pid: int) -> None:
    """Remove the gauges of an ended process. Its counters stay."""
    if Path(os.environ.get(_FOLDER, "")).is_absolute():
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def exposition(asked: "Sequence[Collector]" = ()) -> tuple[bytes, str]:
    """Return the metrics of all processes and of the collectors `asked`, and the media type."""
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        CollectorRegistry,
        generate_latest,
        multiprocess,
    )

    registry = CollectorRegistry()
    if _FOLDER in os.environ:
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry = _own_registry[0]
    text = generate_latest(registry)
    for collector in asked:
        own = CollectorRegistry()
        own.register(collector)
        text += generate_latest(own)
    return text, CONTENT_TYPE_LATEST


def serve(address: str) -> None:
    """Serve metrics at `host:port` in a separate thread, for processes without a web server."""
    from prometheus_client import start_http_server

    host, _, port = address.rpartition(":")
    start_http_server(int(port), host.strip("[]"), registry=_own_registry[0])
