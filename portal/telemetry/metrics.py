"""What is counted, and how Prometheus reads it. Nothing is counted, and the library not loaded,
before `begin`.

No label tells of a single server, person or key: their number has no limit, and their names are
nobody's business.
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

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the library's own name for it
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
    """One metric: `kind` is a class of prometheus_client; `mode` says how gauges of several
    processes are put together. Those of the kind `Asked` are read from the database when somebody
    looks."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()
    mode: str = "livesum"


MEASURES = {
    "portal_http_requests_total": Measure(
        "Counter", "Requests answered.", ("method", "route", "status")
    ),
    "portal_http_request_seconds": Measure(
        "Histogram", "Time until a request was answered.", ("route",)
    ),
    "portal_upstream_calls_total": Measure(
        "Counter", "What upstreams were asked.", ("kind", "outcome")
    ),
    "portal_upstream_call_seconds": Measure(
        "Histogram", "Time until an upstream had answered.", ("kind",)
    ),
    "portal_token_refreshes_total": Measure(
        "Counter", "Sign-ins at servers that were renewed.", ("outcome",)
    ),
    "portal_security_events_total": Measure(
        "Counter", "Refusals and faults that an operator watches.", ("event",)
    ),
    "portal_database_failures_total": Measure(
        "Counter", "Times the database did not answer.", ("error",)
    ),
    "portal_database_connections_in_use": Measure(
        "Gauge", "Connections of the pools that are in use."
    ),
    "portal_redis_away": Measure(
        "Gauge", "1 while a process counts rate limits for itself.", mode="livemax"
    ),
    "portal_worker_rounds_total": Measure("Counter", "Rounds of workers.", ("outcome",)),
    "portal_probes_due": Measure("Asked", "Servers whose health is to be looked at now."),
    "portal_probes_oldest_due_seconds": Measure("Asked", "How long the first of them has waited."),
    "portal_sign_ins_due": Measure("Asked", "Sign-ins at servers that the next call renews."),
    "portal_submissions_waiting": Measure(
        "Asked", "Submitted servers and changes that wait for a decision."
    ),
    "portal_database_answers": Measure(
        "Asked", "1 where the database answered this very look, else 0."
    ),
}

_live: dict[str, Any] = {}
_own_registry: "list[CollectorRegistry]" = []


def begin() -> None:
    """Count from now on; in files that all processes share where `shared_folder` was entered
    before.

    The library decides where it keeps values when it is imported, so it is imported here and no
    earlier.
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
    for event in SECURITY:  # from zero, so that the first one is an increase
        _live["portal_security_events_total"].labels(event)


def count(name: str, *labels: str) -> None:
    """One more of `name`, with the values of its labels in their order."""
    if (live := _live.get(name)) is not None:
        (live.labels(*labels) if labels else live).inc()


def security(event: str) -> None:
    """One more of the events that an operator watches."""
    count("portal_security_events_total", event)


def observe(name: str, seconds: float, *labels: str) -> None:
    """It took so long."""
    if (live := _live.get(name)) is not None:
        live.labels(*labels).observe(seconds)


def move(name: str, by: int) -> None:
    """A gauge went up or down."""
    if (live := _live.get(name)) is not None:
        live.inc(by)


@contextmanager
def shared_folder(*, wanted: bool) -> Iterator[None]:
    """A folder for the counts of all processes that are started within; it is removed in the
    end."""
    if not wanted:
        yield
        return
    folder = os.environ[_FOLDER] = tempfile.mkdtemp(prefix="portal-metrics-")
    try:
        yield
    finally:
        del os.environ[_FOLDER]
        shutil.rmtree(folder, ignore_errors=True)


def forget_process(pid: int) -> None:
    """A process has ended: what it held at this moment counts no more, what it had counted
    stays."""
    if Path(os.environ.get(_FOLDER, "")).is_absolute():
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def exposition(asked: "Sequence[Collector]" = ()) -> tuple[bytes, str]:
    """What Prometheus reads, of all processes that share a folder; and its media type. `asked` adds
    to it."""
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
    """Answer Prometheus at `host:port` from a thread of its own, for a process that has no other
    door."""
    from prometheus_client import start_http_server

    host, _, port = address.rpartition(":")
    start_http_server(int(port), host.strip("[]"), registry=_own_registry[0])
