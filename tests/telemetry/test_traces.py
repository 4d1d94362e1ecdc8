"""When traces are switched on, by OpenTelemetry's own variables."""

import sys

import pytest

from portal.telemetry import traces
from tests.support.peers import bare_environment, run

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    assert "pip install 'mcp-portal[otel]'" in str(traces.begin(ENDPOINT))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "true"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SERVICE_NAME": "portal"},
    ],
)
def test_traces_are_off_unless_an_endpoint_is_named_and_nothing_says_no(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    assert traces.begin(environment) is None


def test_what_is_sent_to_upstreams_carries_no_trace_id() -> None:
    """In a process of its own, for a provider is set once and for all. The MCP SDK asks `inject`
    what to send along."""
    code = f"""
import os
from opentelemetry import propagate
from portal.telemetry import traces
traces.begin({ENDPOINT})
with traces.span("request") as span:
    carrier = {{}}
    propagate.inject(carrier)
    print(span.get_span_context().is_valid, carrier, flush=True)
    os._exit(0)
"""
    told = run([sys.executable, "-c", code], env=bare_environment())
    assert told.stdout == "True {}\n", told.stdout + told.stderr


def test_a_span_without_anybody_who_listens_passes_exceptions_on() -> None:
    with pytest.raises(ZeroDivisionError), traces.span("nothing", server_address="host"):
        _ = 1 / 0
