"""Metrics and traces of requests to upstreams."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from portal.telemetry import metrics
from portal.telemetry.traces import SpanKind, span

_WORD = re.compile(r"[a-z_]{1,24}\Z")


@contextmanager
def outgoing(kind: str, host: str) -> Iterator[None]:
    """Measure one request to an upstream.

    `kind` is one of `probe`, `tools`, `call`, `request`, `document`, `discovery`, `token`,
    `refresh`, `register`, `revoke`. The outcome is `ok` or the `reason` of the failure.
    """
    began = time.perf_counter()
    outcome = "ok"
    try:
        with span(f"upstream {kind}", SpanKind.CLIENT, server_address=host):
            yield
    except BaseException as error:
        reason = str(getattr(error, "reason", ""))
        outcome = reason if _WORD.match(reason) else "error"
        raise
    finally:
        metrics.count("portal_upstream_calls_total", kind, outcome)
        metrics.observe("portal_upstream_call_seconds", time.perf_counter() - began, kind)
