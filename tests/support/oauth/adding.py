"""A server before the recording authorization server, as a pytest plugin."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Write
from tests.support.factories import make_server
from tests.support.oauth.asking import STORED
from tests.support.oauth.recording import RecordingServer


@pytest.fixture
def add(write: Write, recording_as: RecordingServer) -> Callable[..., str]:
    """`add(**fields)`: the server `guarded` before the recording authorization server, its URLs
    typed."""

    def adding(name: str = "guarded", **fields: Any) -> str:
        given = {
            "url": recording_as.url,
            "auth_type": "oauth2",
            "authorization_url": recording_as.endpoint("authorize"),
            "token_url": recording_as.endpoint("token"),
            "credentials": STORED,
            **fields,
        }
        with write() as session:
            return make_server(session, name, **{k: v for k, v in given.items() if v is not None})

    return adding
