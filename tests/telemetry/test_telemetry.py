"""What an operator sees of a running portal: its log, its metrics and its traces, of all its
processes together."""

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.cli.test_cli import wait_until
from tests.support.peers import StartedProcess, bare_environment, free_port, start_process

KEY = "sk-SECRET-key-of-the-operator"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECONDS = 60.0


class Collector(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP, as a collector does."""

    spans: ClassVar[list[Span]] = []
    scopes: ClassVar[set[str]] = set()
    raw: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.raw.append(body)
        sent = ExportTraceServiceRequest.FromString(body)
        for of in (scope for resource in sent.resource_spans for scope in resource.scope_spans):
            self.spans += of.spans
            self.scopes.add(of.scope.name)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@dataclass
class Observed:
    """A portal of two web processes and a worker, which was used a little."""

    address: str
    started: StartedProcess
    folder: Path

    def ask(self, path: str, **options: Any) -> requests.Response:
        method = options.pop("method", "GET")
        return requests.request(method, f"{self.address}{path}", timeout=30, **options)

    def lines(self) -> list[dict[str, Any]]:
        """The log."""
        return [
            json.loads(line) for line in self.started.output().splitlines() if line.startswith("{")
        ]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of what /metrics says of it, with these labels."""
        total = 0.0
        for found, given, value in re.findall(
            r"^(\w+)(?:\{(.*)\})? (\S+)$", self.ask("/metrics").text, re.MULTILINE
        ):
            told = dict(re.findall(r'(\w+)="([^"]*)"', given))
            total += float(value) if found == name and labels.items() <= told.items() else 0
        return total

    def wait(self, is_so: Any) -> None:
        assert wait_until(is_so, self.started.process, SECONDS), self.started.output()


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, echo_server: str) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    port = free_port()
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    environment = bare_environment(
        PORTAL_DATABASE_URL=f"sqlite:///{folder / 'portal.db'}",
        PORTAL_BOOTSTRAP_API_KEY=KEY,
        PORTAL_CHEAP_HASHING="true",
        PORTAL_METRICS="true",
        PORTAL_TRUSTED_PROXIES="127.0.0.1/32",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}",
        OTEL_BSP_SCHEDULE_DELAY="200",
        TMPDIR=str(folder),
    )
    argv = [sys.executable, "-m", "portal.cli", "serve", "--port", str(port)]
    try:
        with start_process(argv, environment, port, seconds=SECONDS) as started:
            portal = Observed(f"http://127.0.0.1:{port}", started, folder)
            use(portal, echo_server)
            yield portal
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()


def use(portal: Observed, echo: str) -> None:
    """Add a server that answers and one that does not, ask as somebody unknown, send what nobody
    should find again."""
    body = {
        "server_id": "dead",
        "server_name": "dead",
        "transport": "http",
        "url": "http://127.0.0.1:9/SECRET?key=SECRET",
    }
    by_key = {"Authorization": f"Bearer {KEY}"}
    assert portal.ask("/v1/mcp/server", method="POST", json=body, headers=by_key).status_code == 201
    for _ in range(10):
        assert portal.ask("/v1/me?code=SECRET", headers=by_key).status_code == 200
    assert (
        portal.ask("/v1/me", headers={"X-API-Key": "sk-SECRET-nobody-has-this"}).status_code == 401
    )
    body = {"server_id": "echo", "server_name": "echo", "transport": "http", "url": echo}
    assert portal.ask("/v1/mcp/server", method="POST", json=body, headers=by_key).status_code == 201
    call = {"server_id": "echo", "name": "show_headers", "arguments": {}}
    assert (
        portal.ask("/v1/mcp/tools/call", method="POST", json=call, headers=by_key).status_code
        == 200
    )
    call = {"server_id": "dead", "name": "SECRET", "arguments": {"a": "SECRET"}}
    assert (
        portal.ask("/v1/mcp/tools/call", method="POST", json=call, headers=by_key).status_code
        == 502
    )
    known = {"X-Request-ID": "a-proxy.made-this", "traceparent": PARENT}
    assert portal.ask("/login", headers=known).headers["X-Request-ID"] == "a-proxy.made-this"


def test_a_request_is_one_line_by_its_route_and_who_asked(observed: Observed) -> None:
    told = [
        line
        for line in observed.lines()
        if line["event"] == "request" and line["route"] == "/v1/me"
    ]
    assert [line["status"] for line in told] == [200] * 10 + [401]
    assert {line["principal"] for line in told} == {"key", "nobody"}
    assert told[0].keys() == {
        "timestamp",
        "level",
        "logger",
        "event",
        "request_id",
        "method",
        "route",
        "status",
        "ms",
        "bytes",
        "address",
        "principal",
        "user_id",
        "key_id",
    }
    assert "user_id" not in told[-1]
    assert len({line["request_id"] for line in told}) == 11


def test_the_id_of_a_trusted_proxy_is_taken_if_it_is_one(observed: Observed) -> None:
    [told] = [line for line in observed.lines() if line.get("request_id") == "a-proxy.made-this"]
    assert told["route"] == "/login"
    answer = observed.ask("/login", headers={"X-Request-ID": 'no" id'})
    assert re.fullmatch("[0-9a-f]{12}", answer.headers["X-Request-ID"])


def test_the_worker_tells_of_its_rounds_in_the_same_log(observed: Observed) -> None:
    observed.wait(lambda: any(line["event"] == "a round is done" for line in observed.lines()))
    [stopped] = [line for line in observed.lines() if line["event"] == "a server stopped answering"]
    assert (stopped["server_id"], stopped["reason"]) == ("dead", "refused")


def test_metrics_are_those_of_all_processes_together(observed: Observed) -> None:
    assert observed.metric("portal_http_requests_total", route="/v1/me", status="2xx") == 10
    assert observed.metric("portal_http_request_seconds_count", route="/v1/me") == 11
    assert observed.metric("portal_security_events_total", event="key_refused") == 1
    assert observed.metric("portal_upstream_calls_total", kind="call", outcome="refused") == 1
    assert observed.metric("portal_upstream_calls_total", kind="call", outcome="ok") == 1
    observed.wait(
        lambda: observed.metric("portal_upstream_calls_total", kind="probe", outcome="refused") >= 1
    )
    observed.wait(lambda: observed.metric("portal_worker_rounds_total", outcome="done") >= 1)
    assert observed.metric("portal_database_answers") == 1


def test_unknown_methods_and_addresses_make_no_series_of_their_own(observed: Observed) -> None:
    for method in ("PROPFIND", "PURGE", "LINK"):
        observed.ask(f"/nothing/{method}", method=method)
    assert observed.ask("/nothing/4", method="ODD").status_code == 400
    assert observed.metric("portal_http_requests_total", method="OTHER", route="unknown") == 3
    assert "nothing" not in observed.ask("/metrics").text


def test_spans_have_the_route_and_the_host_and_hang_together(observed: Observed) -> None:
    observed.wait(
        lambda: (
            {"GET /login", "upstream call", "worker round"}
            <= {span.name for span in Collector.spans}
        )
    )
    named = {span.name: span for span in Collector.spans}
    [login] = [span for span in Collector.spans if span.trace_id.hex() == PARENT.split("-")[1]]
    assert login.name == "GET /login", "the proxy's trace goes on"
    assert {a.key: a.value.string_value for a in login.attributes}["http.route"] == "/login"
    assert Collector.scopes == {"portal"}, (
        "spans of the MCP SDK hold names of tools and texts of exceptions"
    )
    call = named["upstream call"]
    assert {a.key: a.value.string_value for a in call.attributes}["server.address"] == "127.0.0.1"
    asked = [span.span_id for span in Collector.spans if span.name == "POST /v1/mcp/tools/call"]
    assert call.parent_span_id in asked


def test_nothing_of_it_holds_a_secret(observed: Observed) -> None:
    assert Collector.raw
    assert not [text for text in Collector.raw if b"SECRET" in text]
    assert "SECRET" not in observed.ask("/metrics").text
    assert "SECRET" not in observed.started.output()


def test_a_web_process_that_died_counts_no_more_as_alive(observed: Observed) -> None:
    [counts] = observed.folder.glob("portal-metrics-*")
    asked = observed.metric("portal_http_requests_total", route="/v1/me", status="2xx")
    web = next(
        pid
        for pid in children_of(observed.started.pid)
        if (counts / f"gauge_livesum_{pid}.db").exists()
    )
    os.kill(web, signal.SIGKILL)
    observed.wait(lambda: not (counts / f"gauge_livesum_{web}.db").exists())
    assert observed.metric("portal_http_requests_total", route="/v1/me", status="2xx") == asked


def test_a_worker_alone_has_an_address_of_its_own_for_prometheus(tmp_path: Path) -> None:
    port = free_port()
    environment = bare_environment(
        PORTAL_DATABASE_URL=f"sqlite:///{tmp_path / 'portal.db'}",
        PORTAL_METRICS="true",
        PORTAL_WORKER_METRICS=f"127.0.0.1:{port}",
    )
    with start_process(
        [sys.executable, "-m", "portal.cli", "worker"], environment, port, seconds=SECONDS
    ):
        assert (
            "portal_worker_rounds_total"
            in requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        )


def children_of(pid: int) -> list[int]:
    """The web processes of a master, which have its command line."""
    commands = {int(entry.name): entry for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    own = (commands[pid] / "cmdline").read_bytes()
    found = []
    for number, entry in commands.items():
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            found += [number] * (parent == pid and (entry / "cmdline").read_bytes() == own)
    return found


def test_the_folder_of_the_counts_goes_with_the_portal(observed: Observed) -> None:
    """The last of this file: it ends the portal."""
    assert len(list(observed.folder.glob("portal-metrics-*"))) == 1
    observed.started.stop()
    assert list(observed.folder.glob("portal-metrics-*")) == []
