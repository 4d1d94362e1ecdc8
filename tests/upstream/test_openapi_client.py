"""Reading documents from elsewhere and calling what they describe: addresses, sizes, YAML, where
secrets go."""

import json
import time
from typing import Any

import pytest

from portal.domain.errors import UpstreamFailure
from portal.domain.openapi.limits import DocumentError
from portal.domain.upstream import OutboundPolicy, Target
from portal.upstream.documents import parse_openapi
from portal.upstream.mcp_client import UpstreamClient
from tests.support.described import document, pet_store
from tests.support.upstream.raw import always, hang, raw_server
from tests.upstream.test_probing_documents import LAUGHS

KEY = {"Authorization": "Bearer SECRET-key-of-the-pet-store"}


def refusal(client: UpstreamClient, url: str, **more: Any) -> tuple[str, str]:
    with pytest.raises(UpstreamFailure) as caught:
        client.list_tools(Target("http", spec_url=url, **more))
    return caught.value.reason, caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/",
        "http://2852039166/",
        "file:///etc/passwd",
        "http://user:SECRET@127.0.0.1/",
    ],
)
def test_documents_are_not_fetched_from_forbidden_addresses(
    client: UpstreamClient, url: str
) -> None:
    assert refusal(client, url)[0] == "blocked"


def test_private_addresses_only_where_the_operator_allows_them() -> None:
    with pet_store() as store:
        assert refusal(UpstreamClient(OutboundPolicy()), store.spec_url)[0] == "blocked"
        assert store.seen == []


def test_redirects_to_another_origin_are_not_followed(client: UpstreamClient) -> None:
    for place in ("http://169.254.169.254/", "http://10.0.0.1/openapi.json"):
        with raw_server(always(302, Location=place)) as server:
            assert refusal(client, server.url())[0] == "http_status"


def test_a_document_beyond_5_mb_is_refused(client: UpstreamClient) -> None:
    large = json.dumps(document(x="x" * 6_000_000)).encode()
    with pet_store(large) as store:
        said = "127.0.0.1 sent too much: the limit is 5 MiB. The server must send less."
        assert refusal(client, store.spec_url) == ("not_mcp", said)
    with pytest.raises(DocumentError, match="larger than 5 MB"):
        parse_openapi(large)


def test_a_document_that_does_not_come_is_given_up(client: UpstreamClient) -> None:
    with raw_server(hang) as server:
        assert refusal(client, server.url(), timeout=0.3)[0] == "timeout"


def test_what_is_wrong_with_a_document_is_told(client: UpstreamClient) -> None:
    with pet_store({"swagger": "2.0", "paths": {}}) as store:
        assert "Swagger 2" in refusal(client, store.spec_url)[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS.encode(), "more than 100 YAML aliases"),
        (b"openapi: 3.1.0\nx: !!python/object/apply:os.system ['true']\n", "YAML tags"),
        (b"openapi: 3.1.0\nx: &x {a: 1}\ny:\n  <<: *x\n", "merge key"),
        (b"openapi: 3.1.0\nx: " + b"[" * 3_000, "deeper than 100"),
        (b"openapi: 3.1.0\nx: &x [*x]\n", "deeper than 100"),
        (b'{"openapi": "3.1.0", "x": ' + b"[" * 100_000, "deeper than 100"),
        (b'{"openapi": "3.1.0",\n "x": }', "error in line 2"),
        (b"openapi: 3.1.0\nx: [1\n", "error in line"),
        (b'{"openapi": "3.1.0", "x": NaN}', "number that is not valid JSON"),
        (b'{"x": ' + b"9" * 5_000 + b"}", "number that is not valid JSON"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"openapi: 3.1.0\n\x00", "not valid JSON or YAML"),
        (b"", "no field"),
        (b"openapi: 3.1.0\nx: [" + b"1," * 1_000_000 + b"]", "more than 400,000 values"),
    ],
)
def test_text_that_is_too_much_or_wrong_is_refused(text: bytes, words: str) -> None:
    began = time.thread_time()
    with pytest.raises(DocumentError) as caught:
        parse_openapi(text)
    assert words in caught.value.message
    assert time.thread_time() - began < 5


def test_yaml_is_read_like_json() -> None:
    text = """
    openapi: 3.0.3
    info: {title: Dates, version: 1.0}
    x: &shared {name: day, in: query, schema: {type: string, default: 2020-01-01}}
    paths:
      /a:
        get:
          parameters: [*shared]
          responses: {200: {description: ok}}
    """
    found = parse_openapi(text.encode())
    assert found.tools[0].input_schema["properties"] == {
        "day": {"type": "string", "default": "2020-01-01"}
    }
    assert found.version == "1.0"


def test_nothing_that_signs_in_goes_to_another_origin(client: UpstreamClient) -> None:
    with pet_store() as bound, pet_store() as other:
        elsewhere = document(servers=[{"url": f"{other.origin}/api/v1"}])
        bound.serve(elsewhere)
        with pytest.raises(UpstreamFailure) as caught:
            client.call_tool(Target("http", spec_url=bound.spec_url, headers=KEY), "list_pets", {})
        assert caught.value.reason == "blocked"
        assert other.seen == []
        # The document of one origin, the calls at the base URL of another: the key is the base
        # URL's alone.
        target = Target("http", url=f"{other.origin}/api/v1", spec_url=bound.spec_url, headers=KEY)
        assert client.call_tool(target, "list_pets", {}).is_error is False
        assert [request.headers.get("Authorization") for request in bound.seen] == [None, None]
        # Without anything that signs in, the document may say where.
        assert (
            client.call_tool(Target("http", spec_url=bound.spec_url), "list_pets", {}).is_error
            is False
        )


def test_a_service_that_redirects_elsewhere_gets_no_second_request(client: UpstreamClient) -> None:
    with (
        pet_store() as other,
        raw_server(always(307, Location=f"{other.origin}/api/v1/pets")) as server,
        pet_store() as docs,
    ):
        target = Target("http", url=server.url(""), spec_url=docs.spec_url, headers=KEY)
        with pytest.raises(UpstreamFailure) as caught:
            client.call_tool(target, "list_pets", {})
        assert (caught.value.reason, other.seen) == ("http_status", [])


def test_answers_have_a_size_and_a_time(client: UpstreamClient) -> None:
    with pet_store() as docs:
        with raw_server(always(200, b"x" * 3_000_000)) as server:
            target = Target("http", url=server.url(""), spec_url=docs.spec_url)
            with pytest.raises(UpstreamFailure, match="sent too much"):
                client.call_tool(target, "list_pets", {})
        with raw_server(hang) as server:
            target = Target("http", url=server.url(""), spec_url=docs.spec_url, timeout=0.5)
            with pytest.raises(UpstreamFailure) as caught:
                client.call_tool(target, "list_pets", {})
            assert caught.value.reason == "timeout"


@pytest.mark.parametrize(
    ("body", "structured"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"[1]", None),
        (b"no json", None),
        (b'{"a": NaN}', None),
        (b'{"a": "\\u0000"}', {"a": "\ufffd"}),
    ],
)
def test_only_a_json_object_is_structured_content(
    client: UpstreamClient, body: bytes, structured: Any
) -> None:
    with pet_store() as docs, raw_server(always(200, body, "application/json")) as server:
        target = Target("http", url=server.url(""), spec_url=docs.spec_url)
        wire = client.call_tool(target, "list_pets", {}).wire
        assert wire.get("structuredContent") == structured
        assert wire["content"] == [{"type": "text", "text": body.decode()}]


def test_a_failure_is_told_shortly_and_without_the_key(client: UpstreamClient) -> None:
    body = (
        f"{KEY['Authorization']} is not {KEY['Authorization'].split()[1]}; ".encode()
        + b"x" * 10_000
    )
    with pet_store() as docs, raw_server(always(403, body)) as server:
        outcome = client.call_tool(
            Target("http", url=server.url(""), spec_url=docs.spec_url, headers=KEY), "list_pets", {}
        )
        text = outcome.wire["content"][0]["text"]
        assert outcome.is_error
        assert text.startswith("HTTP 403 Forbidden: ••••••••")
        assert "SECRET" not in text
        assert len(text) < 2_100
