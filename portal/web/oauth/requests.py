"""What the OAuth endpoints share: how parameters are read, and how tokens are answered."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

import orjson
from flask import Response
from werkzeug.datastructures import MultiDict

from portal.domain.errors import InvalidRequest

_LONGEST = 8_192
_MOST_PARAMETERS = 40


def parameters(given: MultiDict[str, str], shape: type) -> dict[str, str]:
    """The parameters by name. One that comes twice is an attack or a mistake (RFC 6749, 3.1); so is
    one too long."""
    if len(given) > _MOST_PARAMETERS:
        raise InvalidRequest("The request has too many parameters.")
    for name, values in given.lists():
        if len(values) > 1 or len(values[0]) > _LONGEST:
            raise InvalidRequest(f"A parameter came twice, or is too long: {name[:40]}")
    if "request" in given or "request_uri" in given:
        raise InvalidRequest("Parameters are taken as they are, never from a request object.")
    return {field.name: given.get(field.name, "") for field in fields(shape)}


def tokens(answer: Mapping[str, Any]) -> Response:
    """The answer of a token endpoint (RFC 6749, 5.1)."""
    response = Response(orjson.dumps(answer), mimetype="application/json")
    response.headers["Cache-Control"], response.headers["Pragma"] = "no-store", "no-cache"
    return response


def form_target(uri: str) -> str:
    """The one place outside that a form may lead to, as a policy writes it; it knows no IPv6
    addresses."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or ":" in (parts.hostname or ""):
        return f"{parts.scheme}:"
    return f"{parts.scheme}://{parts.netloc}"
