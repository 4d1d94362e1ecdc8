"""Errors of upstreams as health reasons, with messages that contain no secrets."""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import httpcore2
import httpx2

from portal.domain.errors import InsufficientScope, UpstreamFailure, UpstreamTimeout
from portal.domain.upstream import HealthReason, HealthStatus, ProbeResult, Target
from portal.upstream.bodies import MAX_EVENT_BYTES, AnswerRefused, Unfinished, in_words
from portal.upstream.checks import BadAddress
from portal.upstream.guard import (
    CONNECT_TIMEOUT,
    Blocked,
    NameNotFound,
    RedirectRefused,
    causes_of,
)

_MEDIA_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}", re.ASCII)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")  # RFC 6749, section 3.3
_MOST_SCOPES = 50
_SCHEMES = {
    "basic": "Basic",
    "bearer": "Bearer",
    "digest": "Digest",
    "dpop": "DPoP",
    "negotiate": "Negotiate",
}
# Reasons with an unknown status. With all others, the check failed.
_UNKNOWN = frozenset(
    {HealthReason.SIGN_IN_NEEDED, HealthReason.DISABLED, HealthReason.NEVER_CHECKED}
)


class Fault(Exception):
    """A failed session.

    `challenge` is true for a 401 with WWW-Authenticate. `wanted` are the scopes missing in the
    token, or None if the upstream did not report missing scopes.
    """

    def __init__(
        self,
        reason: HealthReason,
        message: str,
        challenge: bool = False,
        wanted: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.challenge = challenge
        self.wanted = wanted

    def as_failure(self) -> UpstreamFailure:
        """Return the fault as an `UpstreamFailure`."""
        if self.reason is HealthReason.TIMEOUT:
            return UpstreamTimeout(self.message)
        if self.wanted is not None:
            return InsufficientScope(self.message, self.wanted)
        return UpstreamFailure(self.message, reason=self.reason)

    def as_result(self, latency_ms: int) -> ProbeResult:
        """Return the fault as the result of a health check."""
        status = HealthStatus.UNKNOWN if self.reason in _UNKNOWN else HealthStatus.UNHEALTHY
        return ProbeResult(
            status,
            self.reason,
            self.message,
            latency_ms,
            challenge=self.challenge,
            wanted=self.wanted,
        )


@dataclass(frozen=True)
class Answer:
    """The parts of a response's head that messages may contain."""

    status: int
    media_type: str
    challenged: bool
    scheme: str
    wanted: tuple[str, ...] | None = None

    @classmethod
    def of(cls, response: httpx2.Response) -> "Answer":
        return cls.with_headers(response.status_code, response.headers)

    @classmethod
    def with_headers(cls, status: int, headers: Mapping[str, str]) -> "Answer":
        """Return the head with this status, and headers by lower-case name."""
        media_type = _MEDIA_TYPE.match(headers.get("content-type", ""))
        challenge = headers.get("www-authenticate", "").strip()
        scheme = _SCHEMES.get(challenge.partition(" ")[0].lower(), "")
        wanted = _wanted(challenge) if status == HTTPStatus.FORBIDDEN else None
        return cls(
            status,
            media_type[0].lower() if media_type else "",
            bool(challenge),
            scheme,
            wanted,
        )

    @property
    def is_json(self) -> bool:
        return self.media_type == "application/json" or self.media_type.endswith("+json")

    @property
    def speaks_mcp(self) -> bool:
        """Return whether the response may be MCP, judging by its head."""
        return self.status < 300 and (
            self.status == 202 or self.is_json or self.media_type == "text/event-stream"
        )

    def __str__(self) -> str:
        return f"HTTP {self.status}" + (f", {self.media_type}" if self.media_type else "")


def _wanted(challenge: str) -> tuple[str, ...] | None:
    """Return the valid scopes of an `insufficient_scope` error (RFC 6750, section 3), or None."""
    if not re.search(r'\berror="?insufficient_scope\b', challenge):
        return None
    scope = re.search(r'\bscope="([^"]{0,2000})"', challenge)
    words = scope[1].split()[:_MOST_SCOPES] if scope else []
    return tuple(word for word in words if _SCOPE.fullmatch(word))


def fault_of_answer(target: Target, answer: Answer, expected: str) -> Fault:
    """Return the fault of an unsuccessful response; `expected` describes the expected one."""
    name = target.label
    is_challenge = answer.status == HTTPStatus.FORBIDDEN and bool(answer.scheme)
    if answer.status == HTTPStatus.UNAUTHORIZED or is_challenge:
        scheme = f", {answer.scheme}" if answer.scheme else ""
        message = f"{name} requires sign-in (HTTP {answer.status}{scheme})."
        return Fault(
            HealthReason.SIGN_IN_NEEDED, message, challenge=answer.challenged, wanted=answer.wanted
        )
    if 300 <= answer.status < 400:
        return Fault(
            HealthReason.HTTP_STATUS,
            f"{name} returned too many or invalid redirects (HTTP {answer.status}).",
        )
    if answer.status in (403, 407, 408, 425, 429) or answer.status >= 500:
        return Fault(HealthReason.HTTP_STATUS, f"{name} returned HTTP {answer.status}.")
    return Fault(HealthReason.NOT_MCP, f"{name} did not return {expected} ({answer}).")


def fault_of_network(
    target: Target, fault: BaseException, port: int | None, timeout: float
) -> Fault:
    """Return the fault of a request without a response; `timeout` in seconds is for the message."""
    name = target.label
    where = f" on port {port}" if port else ""
    for cause in causes_of(fault):
        if isinstance(cause, Blocked):
            return Fault(
                HealthReason.BLOCKED,
                f"The IP address of {name} is not allowed by the outbound policy.",
            )
        if isinstance(cause, NameNotFound):
            return Fault(HealthReason.DNS, f"The host {name} was not found.")
        if isinstance(cause, BadAddress | httpx2.InvalidURL | httpx2.UnsupportedProtocol):
            return Fault(
                HealthReason.BLOCKED, f"The URL of {name} is not a valid http or https URL."
            )
        if isinstance(cause, RedirectRefused):
            return Fault(
                HealthReason.HTTP_STATUS,
                f"{name} redirects to another address, which is not allowed.",
            )
        if isinstance(cause, AnswerRefused):
            return Fault(HealthReason.NOT_MCP, f"{name} {cause.said}")
        if isinstance(cause, httpx2.SSEError) and "byte limit" in str(cause):
            said = (
                f"{name} sent an event of more than {in_words(MAX_EVENT_BYTES)}. The server must"
                " send smaller events."
            )
            return Fault(HealthReason.NOT_MCP, said)
        if isinstance(cause, Unfinished):
            return Fault(
                HealthReason.TIMEOUT, f"{name} did not complete its response within {timeout:g} s."
            )
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f" ({cause.verify_message})" if cause.verify_message else ""
            return Fault(HealthReason.TLS, f"TLS: the certificate of {name} is not valid{why}.")
        if isinstance(cause, ssl.SSLError):
            return Fault(
                HealthReason.TLS,
                f"TLS: {name} and the portal could not establish a secure connection{where}.",
            )
        if isinstance(cause, ConnectionRefusedError):
            return Fault(HealthReason.REFUSED, f"{name} refused the connection{where}.")
        if isinstance(cause, httpx2.ConnectTimeout):
            return timed_out(target, min(timeout, CONNECT_TIMEOUT))
        if isinstance(cause, httpx2.TimeoutException | httpcore2.TimeoutException):
            return timed_out(target, timeout)
        if isinstance(cause, httpx2.ProtocolError):
            return Fault(HealthReason.NOT_MCP, f"{name} did not return an HTTP response{where}.")
    if isinstance(fault, httpx2.ConnectError):
        return Fault(HealthReason.REFUSED, f"{name} could not be reached{where}.")
    return Fault(HealthReason.REFUSED, f"{name} closed the connection{where}.")


def timed_out(target: Target, timeout: float) -> Fault:
    return Fault(HealthReason.TIMEOUT, f"{target.label} did not respond within {timeout:g} s.")
