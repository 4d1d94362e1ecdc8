"""Parameters and token responses of the OAuth endpoints."""

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
    """Return the parameters by name.

    Raises `InvalidRequest` for repeated (RFC 6749, section 3.1) or too long parameters.
    """
    if len(given) > _MOST_PARAMETERS:
        raise InvalidRequest("The request has too many parameters.")
    for name, values in given.lists():
        if len(values) > 1 or len(values[0]) > _LONGEST:
            raise InvalidRequest(f"A parameter is repeated or too long: {name[:40]}")
    if "request" in given or "request_uri" in given:
        raise InvalidRequest("Request objects are not supported. Send the parameters directly.")
    return {field.name: given.get(field.name, "") for field in fields(shape)}


def tokens(answer: Mapping[str, Any]) -> Response:
    """Return the response of a token endpoint (RFC 6749, 5.1)."""
    response = Response(orjson.dumps(answer), mimetype="application/json")
    response.headers["Cache-Control"], response.headers["Pragma"] = "no-store", "no-cache"
    return response


def form_target(uri: str) -> str:
    """Return the external `form-action` source of a form. CSP has no IPv6 addresses."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or ":" in (parts.hostname or ""):
        return f"{parts.scheme}:"
    return f"{parts.scheme}://{parts.netloc}"
