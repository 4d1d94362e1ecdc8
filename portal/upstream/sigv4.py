"""AWS Signature Version 4 for requests to upstreams on AWS.

It follows "Create a signed AWS API request" (IAM User Guide) and passes the published test suite.
The signature includes a hash of the whole body, so requests are not streamed.
"""

import hashlib
import hmac
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from urllib.parse import quote, unquote

import httpx2

from portal.domain.upstream import AwsSigning, HealthReason
from portal.upstream.faults import Fault

_ALGORITHM = "AWS4-HMAC-SHA256"
# Other headers are not signed, since proxies may change them.
_SIGNED = ("content-type", "host")


class AwsAuth(httpx2.Auth):
    """Signer of requests. Raises `Fault` (`disabled`) for invalid credentials."""

    requires_request_body = True

    def __init__(
        self, signing: AwsSigning, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        if signing.role:
            raise Fault(
                HealthReason.DISABLED,
                "AWS roles are not supported. Store an access key or a temporary session key.",
            )
        if not (signing.access_key_id and signing.secret_access_key):
            raise Fault(
                HealthReason.DISABLED,
                "AWS SigV4 requires an access key ID and a secret access key.",
            )
        self._signing = signing
        self._now = now

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Sign the method, URL, host, time and body of `request`."""
        request.headers["x-amz-date"] = f"{self._now():%Y%m%dT%H%M%SZ}"
        request.headers["x-amz-content-sha256"] = hashlib.sha256(request.content).hexdigest()
        if self._signing.session_token:
            request.headers["x-amz-security-token"] = self._signing.session_token
        signed = {
            n: v for n, v in request.headers.items() if n in _SIGNED or n.startswith("x-amz-")
        }
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        request.headers["authorization"] = authorization_header(
            self._signing, request.method, path, query, signed, request.content
        )
        yield request


def authorization_header(
    signing: AwsSigning, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
) -> str:
    """Return the `Authorization` value for a request with the signed `headers`.

    They include `x-amz-date`. `path` must be encoded as sent. It is encoded again, as all AWS
    services except S3 require.
    """
    values = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    names = ";".join(sorted(values))
    canonical = "\n".join(
        (
            method,
            _path(path),
            _query(query),
            *(f"{name}:{values[name]}" for name in sorted(values)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    at = values["x-amz-date"]
    scope = f"{at[:8]}/{signing.region}/{signing.service}/aws4_request"
    text = "\n".join((_ALGORITHM, at, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{signing.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return (
        f"{_ALGORITHM} Credential={signing.access_key_id}/{scope}, SignedHeaders={names},"
        f" Signature={signature}"
    )


def _path(path: str) -> str:
    """Return the encoded path without `.`, `..` and repeated slashes."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    tail = "/" if parts and path.endswith(("/", "/.", "/..")) else ""
    return quote("/" + "/".join(parts) + tail, safe="/-_.~")


def _query(query: str) -> str:
    """Return the query sorted by name and value, with normalized encoding."""
    pairs = (part.partition("=")[::2] for part in query.split("&") if part)
    encoded = sorted(
        (quote(unquote(name), safe="-_.~"), quote(unquote(value), safe="-_.~"))
        for name, value in pairs
    )
    return "&".join(f"{name}={value}" for name, value in encoded)
