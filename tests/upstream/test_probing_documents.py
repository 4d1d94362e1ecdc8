"""APIs that are only described: their health is the fetch of an OpenAPI document (HLT-08,
spec/security.md, 2.8)."""

import time
from typing import Any

import pytest

from portal.domain.upstream import OutboundPolicy, Target
from portal.upstream.mcp_client import UpstreamClient
from portal.upstream.probing import is_openapi
from tests.support.upstream.raw import PROMPT, always, hang, raw_server

LAUGHS = (
    "openapi: 3.1.0\n"
    + "a0: &a0 [x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
)


@pytest.mark.parametrize(
    "document",
    [
        '{"openapi": "3.1.0", "paths": {}}',
        '  \n{"swagger": "2.0"}',
        "openapi: 3.1.0\ninfo:\n  title: x\n",
        (
            "# a remark\n---\ninfo: {title: x, list: [1, 2]}\npaths:\n  /a: {get: {}}\nswagger:"
            " '2.0'\n"
        ),
        "\ufeffopenapi: 3.0.0",
        LAUGHS,
    ],
)
def test_a_mapping_with_its_version_is_a_document(document: str) -> None:
    began = time.process_time()
    assert is_openapi(document.encode())
    assert time.process_time() - began < PROMPT


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b'{"info": {"openapi": "3.1.0"}}',
        b"info:\n  openapi: 3.1.0\n",
        b"info: openapi\n",
        b"- openapi\n",
        b"openapi\n",
        b"<html>openapi: 3</html>",
        b'["openapi"]',
        b'{"openapi": ',
        b"{" * 100_000,
        b"openapi: " + b"[" * 100_000,
        b"? [openapi]\n: x\n",
        b"openapi: [1\n",
        b"\xff\xfe\x00",
        b"a: *unknown",
        b"\x00",
    ],
)
def test_anything_else_is_none(document: bytes) -> None:
    began = time.process_time()
    assert not is_openapi(document)
    assert time.process_time() - began < PROMPT


def probe(client: UpstreamClient, url: str, **more: Any) -> tuple[str, str, str]:
    result = client.probe(Target("http", spec_url=url, **more))
    return result.status, result.reason, result.message


def test_a_document_is_fetched_without_the_targets_headers(client: UpstreamClient) -> None:
    with raw_server(always(200, b'{"openapi": "3.1.0"}', "application/json")) as server:
        expected = ("healthy", "ok", "127.0.0.1 returned its OpenAPI document.")
        assert probe(client, server.url("/spec"), headers={"Authorization": "SECRET"}) == expected
        assert "authorization" not in server.seen[0].headers
        assert (server.seen[0].method, server.seen[0].path) == ("GET", "/spec")


def test_what_is_no_document_is_told(client: UpstreamClient) -> None:
    with raw_server(always(200, b"<h1>SECRET</h1>")) as server:
        expected = ("unhealthy", "not_mcp", "127.0.0.1 did not return an OpenAPI document.")
        assert probe(client, server.url("/SECRET")) == expected
    with raw_server(always(404, b"SECRET")) as server:
        expected = (
            "unhealthy",
            "not_mcp",
            "127.0.0.1 did not return an OpenAPI document (HTTP 404, text/html).",
        )
        assert probe(client, server.url("/SECRET")) == expected
    with raw_server(always(401, WWW_Authenticate="Basic realm=SECRET")) as server:
        expected = (
            "unknown",
            "sign_in_needed",
            "127.0.0.1 requires sign-in (HTTP 401, Basic).",
        )
        assert probe(client, server.url("/SECRET")) == expected


def test_a_document_beyond_5_mib_is_not_read(client: UpstreamClient) -> None:
    with raw_server(
        always(200, b'{"openapi": "3.1.0", "x": "' + b"x" * 6_000_000 + b'"}')
    ) as server:
        assert probe(client, server.url())[1:] == (
            "not_mcp",
            "127.0.0.1 sent too much: the limit is 5 MiB. The server must send less.",
        )


def test_a_document_elsewhere_is_not_fetched(client: UpstreamClient) -> None:
    with raw_server(always(302, Location="http://169.254.169.254/SECRET")) as server:
        assert probe(client, server.url())[1] == "http_status"
    assert probe(client, "file:///etc/passwd")[1] == "blocked"
    assert probe(UpstreamClient(OutboundPolicy()), "http://127.0.0.1:1/")[1] == "blocked"
    assert probe(client, "http://127.0.0.1:1/")[1] == "refused"


def test_a_document_that_does_not_come_is_given_up(client: UpstreamClient) -> None:
    with raw_server(hang) as server:
        assert probe(client, server.url(), timeout=0.3)[1:] == (
            "timeout",
            "127.0.0.1 did not respond within 0.3 s.",
        )
