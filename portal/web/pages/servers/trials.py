"""Results of connection tests, as pages show them."""

from typing import Any

from portal.domain.upstream import HealthStatus
from portal.services.upstreams import connection_test


def result_of(trial: connection_test.Trial) -> dict[str, Any]:
    """Return a connection test in the format of `ui.tools.result`."""
    found = trial.result
    ok = found.status is HealthStatus.HEALTHY
    labels = {"sign_in_needed": "Server reached, sign-in required"}
    tones = {HealthStatus.HEALTHY: "ok", HealthStatus.UNKNOWN: "warn"}
    return {
        "ok": ok,
        "tone": tones.get(found.status, "bad"),
        "label": "Connection successful" if ok else labels.get(found.reason, "Connection failed"),
        "message": None if ok else found.message,
        "latency_ms": found.latency_ms,
        "protocol_version": found.protocol_version,
        "server_name": found.server_name,
        "server_version": found.server_version,
        "tools": found.tools,
        "unset": trial.unset,
    }
