"""A connection that was tried, as pages show it."""

from typing import Any

from portal.domain.upstream import HealthStatus
from portal.services.upstreams import connection_test


def result_of(trial: connection_test.Trial) -> dict[str, Any]:
    """A try as `ui.tools.result` shows it."""
    found = trial.result
    ok = found.status is HealthStatus.HEALTHY
    labels = {"sign_in_needed": "It answers, and asks for a sign-in"}
    return {
        "ok": ok,
        "tone": "ok" if ok else "warn" if found.status is HealthStatus.UNKNOWN else "bad",
        "label": "Connection successful" if ok else labels.get(found.reason, "No connection"),
        "message": None if ok else found.message,
        "latency_ms": found.latency_ms,
        "protocol_version": found.protocol_version,
        "server_name": found.server_name,
        "server_version": found.server_version,
        "tools": found.tools,
        "unset": trial.unset,
    }
