"""docs/limits.md says what the code does."""

import re
from pathlib import Path

import pytest

from portal import app
from portal.cli.checks import network
from portal.domain.openapi import limits as openapi_limits
from portal.gateway import app as gateway_app
from portal.gateway import calls, draining, lists
from portal.processes import gateway
from portal.services.catalog import import_documents
from portal.upstream import (
    answering,
    bodies,
    documents,
    guard,
    json_text,
    mcp_client,
    oauth_client,
    oauth_discovery,
    openapi_client,
    openid,
    sandbox,
    stdio,
    yaml_text,
)
from portal.upstream.bodies import in_words
from portal.web import limits as web_limits

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "limits.md").read_text()


def _rows() -> dict[str, str]:
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT.splitlines()
        if line[:1] == "|"
    ]
    return {first: " | ".join(rest) for first, *rest in cells if not re.fullmatch(r"-+", first)}


ROWS = _rows()
HEADINGS = {
    "Limit",
    "What",
    "Limit of documents",
    "Limit of commands (stdio)",
    "Limit of the gateway",
}
HELD = {
    "Content encodings": f"{bodies.MAX_ENCODINGS}: `{bodies.ACCEPT_ENCODING}`",
    "Bytes after the end of a gzip stream": "0",
    "Unpacked size of a gzip body": (
        f"{bodies.MAX_RATIO} times its size, from {in_words(bodies.RATIO_FROM)} on"
    ),
    "Status line, headers and interim responses (1xx)": in_words(bodies.MAX_HEAD_BYTES),
    "Headers": str(bodies.MAX_HEADERS),
    "Chunks of one body": f"{bodies.MAX_PIECES:,}",
    "Tiny chunks": (
        f"after {bodies.FREE_PIECES} chunks, {bodies.BYTES_OF_A_PIECE} bytes a chunk on average"
    ),
    "Lines of one event stream": f"{bodies.MAX_EVENT_LINES:,}",
    "One event over HTTP+SSE": in_words(bodies.MAX_EVENT_BYTES),
    "JSON values in one response": f"{json_text.MAX_VALUES:,}",
    "Redirects": f"{guard.MAX_REDIRECTS}, within the origin",
    "IP addresses tried for a host name": str(guard.MAX_ADDRESSES),
    "Time to connect": f"{guard.CONNECT_TIMEOUT:g} s",
    "An MCP response or stream": (
        f"{in_words(bodies.MAX_MESSAGE_BYTES)} | the server's own timeout; for a health check "
        f"{mcp_client.PROBE_TIMEOUT:g} s"
    ),
    "A line of a command (stdio)": in_words(stdio.MAX_LINE_BYTES),
    "An OpenAPI document": in_words(documents.MAX_DOCUMENT_BYTES),
    "A response of a service with an OpenAPI document": in_words(openapi_client.MAX_RESPONSE_BYTES),
    "Metadata of authorization servers and resources": (
        f"{in_words(oauth_discovery.MAX_DOCUMENT)} | {oauth_discovery.TIMEOUT:g} s each, "
        f"{oauth_discovery.MOST_TIME:g} s for all"
    ),
    "Responses to token, registration and revocation requests": (
        f"{in_words(oauth_client.MAX_ANSWER)} | {oauth_client.TIMEOUT:g} s"
    ),
    "A sign-in provider's metadata, keys and user information": (
        f"{in_words(openid.MAX_DOCUMENT)} | {openid.TIMEOUT:g} s"
    ),
    "The portal's own address (`portal doctor`)": (
        f"{in_words(network.MOST_BYTES)} | {network.SECONDS} s"
    ),
    "The home folder of a saved server": (
        f"{in_words(sandbox.HOME_BYTES)} on the disk, {sandbox.HOME_FILES:,} files"
    ),
    "One file": in_words(sandbox.LIMITS["fsize"]),
    "`/tmp`, and the home folder of a server that is not saved, in memory": in_words(
        sandbox.TMP_BYTES
    ),
    "Processes": str(sandbox.LIMITS["nproc"]),
    "Open files": f"{sandbox.LIMITS['nofile']:,}",
    "Memory (data) of a process": in_words(sandbox.LIMITS["data"]),
    "Values of an OpenAPI document": f"{openapi_limits.MAX_NODES:,}",
    "Depth of an OpenAPI document": str(openapi_limits.MAX_DEPTH),
    "Operations": f"{openapi_limits.MAX_OPERATIONS:,}",
    "YAML aliases": str(documents.MAX_ALIASES),
    "YAML directives (`%`)": str(yaml_text.MAX_DIRECTIVES),
    "A request's body": f"{in_words(app.MOST_BYTES)} | 413",
    "The preview of an OpenAPI document, with its file": in_words(
        web_limits.LARGER_BODIES["openapi.preview"]
    ),
    "A document to import": f"{in_words(import_documents.MOST_BYTES)} | 413",
    "New registrations of MCP clients from one address, including refused ones; equal ones do not"
    " count": (web_limits.REGISTER.replace(" per hour;", " an hour, ").replace(" per ", " a ")),
    "Password sign-in attempts from one address": web_limits.SIGN_IN_BY_ADDRESS.replace(
        " per ", " a "
    ),
    "Password sign-in attempts for one email address": web_limits.SIGN_IN_BY_EMAIL.replace(
        " per ", " in "
    ),
    "A client's message": f"{in_words(gateway_app.MOST_BODY_BYTES)} | 413",
    "A client's request line and headers": f"{in_words(gateway.MOST_HEAD_BYTES)} | 431",
    "A list of tools that the gateway filters or renames, and one event with it": in_words(
        lists.MOST_BYTES
    ),
    "Requests to one command (stdio) at the same time, in one process": str(
        answering.MOST_COMMANDS
    ),
    "Requests to one server with HTTP+SSE or OpenAPI at the same time, in one process": str(
        answering.MOST_REQUESTS
    ),
    "Calls that wait to be logged": f"{calls.MOST_WAITING:,}",
    "Time for running calls after SIGTERM": f"{draining.SECONDS_FOR_CALLS:g} s",
    "A request line": "8,190 bytes | 414",
    "A header": "16,380 bytes | 431",
}


@pytest.mark.parametrize("name", HELD)
def test_the_document_of_limits_says_what_the_code_has(name: str) -> None:
    assert re.match(rf"{re.escape(HELD[name])}(?![\w,.])", ROWS[name])


def test_every_row_is_held_to_the_code() -> None:
    assert set(ROWS) - HEADINGS == set(HELD)


def test_the_web_server_has_the_limits_that_are_written_there() -> None:
    text = (ROOT / "portal" / "processes" / "web.py").read_text()
    assert '"limit_request_line": 8190' in text
    assert '"limit_request_field_size": 16_380' in text
