"""AWS Signature Version 4: AWS's published vectors, and a real upstream that works the signature
out for itself."""

import hashlib
import hmac
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer

from portal.domain.errors import UpstreamFailure
from portal.domain.upstream import AwsSigning, HealthReason, Target
from portal.upstream.mcp_client import UpstreamClient
from portal.upstream.sigv4 import authorization_header
from tests.support.peers import accepts, free_port

KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SUITE = AwsSigning("AKIDEXAMPLE", KEY, region="us-east-1", service="service")
DATE = {"X-Amz-Date": "20150830T123600Z"}
HOST = {"Host": "example.amazonaws.com", **DATE}
FORM = {"Content-Type": "application/x-www-form-urlencoded", **HOST}
UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "signature"),
    [
        (
            "GET",
            "/",
            "",
            HOST,
            b"",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "POST",
            "/",
            "",
            HOST,
            b"",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "POST",
            "/",
            "",
            FORM,
            b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        (
            "GET",
            "/",
            "Param2=value2&Param1=value1",
            HOST,
            b"",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "GET",
            "/",
            "%E1%88%B4=bar",
            HOST,
            b"",
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        ),
        (
            "GET",
            "/",
            f"{UNRESERVED}={UNRESERVED}",
            HOST,
            b"",
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        ),
        (
            "GET",
            f"/{UNRESERVED}",
            "",
            HOST,
            b"",
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        (
            "GET",
            "/\u1234",
            "",
            HOST,
            b"",
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        ),
        (
            "GET",
            "/example/..",
            "",
            HOST,
            b"",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "GET",
            "/./",
            "",
            HOST,
            b"",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "GET",
            "/",
            "",
            {**HOST, "My-Header1": " value1", "My-Header2": ' "a   b   c"'},
            b"",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
    ],
)
def test_the_published_vectors(
    method: str, path: str, query: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    """Names and results are of AWS's aws4_testsuite (us-east-1, "service")."""
    made = authorization_header(SUITE, method, path, query, headers, body)
    assert made.startswith(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
    )
    assert made.endswith(f"Signature={signature}")


def test_the_example_of_the_user_guide() -> None:
    signing = AwsSigning("AKIDEXAMPLE", KEY, region="us-east-1", service="iam")
    headers = {
        "Host": "iam.amazonaws.com",
        **DATE,
        "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
    }
    assert authorization_header(
        signing, "GET", "/", "Action=ListUsers&Version=2010-05-08", headers, b""
    ) == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


class Gate:
    """An ASGI door that lets in only what is signed with `secret` over exactly what arrived, and
    not long ago."""

    def __init__(self, app: Any, secret: str) -> None:
        self.app, self.secret, self.tokens = app, secret, set[str]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        body = b""
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            body = body + message.get("body", b"")
            more = message.get("more_body", False)
        if not self.is_right(scope, body):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            return await send(
                {"type": "http.response.body", "body": b"The signature does not match."}
            )
        given = [{"type": "http.request", "body": body}]

        async def again() -> Any:
            return given.pop() if given else await receive()

        return await self.app(scope, again, send)

    def is_right(self, scope: Any, body: bytes) -> bool:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        scheme, _, rest = headers.get("authorization", "").partition(" ")
        parts = dict(part.split("=", 1) for part in rest.split(", ") if "=" in part)
        if scheme != "AWS4-HMAC-SHA256" or not {"host", "x-amz-date"} <= set(
            parts["SignedHeaders"].split(";")
        ):
            return False
        at = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        _, *place = parts["Credential"].split("/")
        self.tokens.add(headers.get("x-amz-security-token", ""))
        query = "&".join(sorted(scope["query_string"].decode().split("&")))
        lines = [scope["method"], quote(scope["raw_path"].decode(), safe="/-_.~"), query]
        lines += [f"{name}:{headers[name]}" for name in parts["SignedHeaders"].split(";")]
        lines += ["", parts["SignedHeaders"], hashlib.sha256(body).hexdigest()]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        key = f"AWS4{self.secret}".encode()
        for step in place:
            key = hmac.digest(key, step.encode(), "sha256")
        text = "\n".join((scheme, headers["x-amz-date"], "/".join(place), digest))
        fresh = abs(datetime.now(UTC) - at) < timedelta(minutes=5)
        return fresh and hmac.digest(key, text.encode(), "sha256").hex() == parts["Signature"]


@contextmanager
def served(gate: Gate) -> Iterator[str]:
    """The gate on a free port, in a thread of its own."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(gate, host="127.0.0.1", port=port, log_level="warning", lifespan="on")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not accepts(port):
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def gate() -> Iterator[tuple[Gate, str]]:
    """A real MCP server behind such a door, and its URL, of which a query and an encoded name are
    part."""
    mcp = MCPServer("signed", log_level="WARNING")

    @mcp.tool()
    def add(a: int, b: int) -> int:
        return a + b

    door = Gate(mcp.streamable_http_app(), KEY)
    with served(door) as url:
        yield door, f"{url}?qualifier=a%20b&arn=x%3Ay"


def test_a_server_that_checks_the_signature_is_called(
    client: UpstreamClient, gate: tuple[Gate, str]
) -> None:
    door, url = gate
    target = Target(
        "http",
        url,
        signing=AwsSigning("AKIDEXAMPLE", KEY, session_token="token-1", region="eu-west-1"),
    )
    assert client.call_tool(target, "add", {"a": 2, "b": 3}).wire["structuredContent"] == {
        "result": 5
    }
    assert [tool.name for tool in client.list_tools(target)] == ["add"]
    assert door.tokens == {"token-1"}


def test_a_wrong_key_is_refused(client: UpstreamClient, gate: tuple[Gate, str]) -> None:
    with pytest.raises(UpstreamFailure):
        client.list_tools(Target("http", gate[1], signing=AwsSigning("AKIDEXAMPLE", "another")))


@pytest.mark.parametrize(
    ("signing", "words"),
    [
        (
            AwsSigning("AKIDEXAMPLE", KEY, role="arn:aws:iam::1:role/x"),
            "AWS roles are not supported",
        ),
        (AwsSigning("AKIDEXAMPLE"), "requires an access key ID and a secret access key"),
        (AwsSigning(secret_access_key=KEY), "requires an access key ID and a secret access key"),
    ],
)
def test_what_cannot_be_signed_says_why(
    client: UpstreamClient, signing: AwsSigning, words: str
) -> None:
    target = Target("http", "http://127.0.0.1:9/mcp", signing=signing)
    with pytest.raises(UpstreamFailure, match=words) as refused:
        client.call_tool(target, "add", {})
    assert refused.value.reason == HealthReason.DISABLED
    assert words in client.probe(target).message
    assert KEY not in repr(target) + repr(signing)
