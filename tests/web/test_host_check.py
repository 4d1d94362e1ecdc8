"""A compressed request body is refused: nothing here unpacks it, and it must not be read as if it
were plain."""

import gzip
import zlib

import pytest
from flask import Flask

from tests.conftest import KEYS

BODY = b'{"alias": "x", "url": "https://example.com/mcp"}'


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("GZip", gzip.compress(BODY)),
        ("gzip, gzip", gzip.compress(gzip.compress(BODY))),
        ("identity, gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("br", BODY),
        ("zstd", BODY),
        ("whatever", BODY),
        ("gzip", BODY),
    ],
    ids=range(10),
)
def test_a_compressed_body_is_415_wherever_it_is_sent(
    app: Flask, encoding: str, body: bytes
) -> None:
    for path in ("/v1/mcp/server", "/login", "/token", "/nowhere"):
        _check(app, path, encoding, body)


def _check(app: Flask, path: str, encoding: str, body: bytes) -> None:
    kind = "application/json" if path.startswith("/v1") else "application/x-www-form-urlencoded"
    headers = {"Content-Encoding": encoding, "Authorization": f"Bearer {KEYS['ada']}"}
    answer = app.test_client().post(path, data=body, content_type=kind, headers=headers)
    assert answer.status_code == 415
    assert answer.headers["Accept-Encoding"] == "identity"
    assert "Content-Encoding" in answer.get_data(as_text=True)


@pytest.mark.parametrize("encoding", ["identity", "", " , Identity,"])
def test_a_body_that_is_not_compressed_is_read(app: Flask, encoding: str) -> None:
    headers = {"Content-Encoding": encoding, "Authorization": f"Bearer {KEYS['ada']}"}
    answer = app.test_client().post(
        "/v1/mcp/server", data=b"[]", content_type="application/json", headers=headers
    )
    assert answer.status_code == 422


def test_a_request_without_a_body_is_not_asked_about_one(app: Flask) -> None:
    headers = {"Content-Encoding": "gzip", "Authorization": f"Bearer {KEYS['ada']}"}
    assert app.test_client().get("/v1/mcp/server", headers=headers).status_code == 200
