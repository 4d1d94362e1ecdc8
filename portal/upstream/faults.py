"""What went wrong between us and an upstream, as a health reason and a sentence that gives nothing
away."""

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
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")  # RFC 6749, 3.3
_MOST_SCOPES = 50
_SCHEMES = {
    "basic": "Basic",
    "bearer": "Bearer",
    "digest": "Digest",
    "dpop": "DPoP",
    "negotiate": "Negotiate",
}
# Not tried, or not ours to judge: the rest was tried and failed.
_UNKNOWN = frozenset(
    {HealthReason.SIGN_IN_NEEDED, HealthReason.DISABLED, HealthReason.NEVER_CHECKED}
)


class Fault(Exception):
    """A conversation that failed. `challenge`: the upstream answered 401 with WWW-Authenticate;
    `wanted`: the scopes that it misses in the token, None where this is not what it said."""

    def __init__(
        self,
        reason: HealthReason,
        message: str,
        challenge: bool = False,
        wanted: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason, self.message, self.challenge, self.wanted = reason, message, challenge, wanted

    def as_failure(self) -> UpstreamFailure:
        """The same in the words of the product."""
        if self.reason is HealthReason.TIMEOUT:
            return UpstreamTimeout(self.message)
        if self.wanted is not None:
            return InsufficientScope(self.message, self.wanted)
        return UpstreamFailure(self.message, reason=self.reason)

    def as_result(self, latency_ms: int) -> ProbeResult:
        """The same as the outcome of a probe."""
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
    """The head of a response, as far as a message may tell of it."""

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
        """The head with this status, and with headers by lower-case name."""
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
        """The head does not rule out that this is MCP."""
        return self.status < 300 and (
            self.status == 202 or self.is_json or self.media_type == "text/event-stream"
        )

    def __str__(self) -> str:
        return f"HTTP {self.status}" + (f", {self.media_type}" if self.media_type else "")


def _wanted(challenge: str) -> tuple[str, ...] | None:
    """The scopes of an `insufficient_scope` challenge (RFC 6750, 3), as far as they are scopes;
    None for any other."""
    if not re.search(r'\berror="?insufficient_scope\b', challenge):
        return None
    scope = re.search(r'\bscope="([^"]{0,2000})"', challenge)
    words = scope[1].split()[:_MOST_SCOPES] if scope else []
    return tuple(word for word in words if _SCOPE.fullmatch(word))


def fault_of_answer(target: Target, answer: Answer, expected: str) -> Fault:
    """Judge the head of a response that was no success; `expected` names what was hoped for (MCP, a
    document)."""
    name = target.label
    if answer.status == HTTPStatus.UNAUTHORIZED or (
        answer.status == HTTPStatus.FORBIDDEN and answer.scheme
    ):
        how = f" ({answer.scheme})" if answer.scheme else ""
        message = f"{name} answered {answer.status} and asks for sign-in{how}."
        return Fault(
            HealthReason.SIGN_IN_NEEDED, message, challenge=answer.challenged, wanted=answer.wanted
        )
    if 300 <= answer.status < 400:
        return Fault(
            HealthReason.HTTP_STATUS,
            f"{name} redirects too often or to nowhere (HTTP {answer.status}).",
        )
    if answer.status in (403, 407, 408, 425, 429) or answer.status >= 500:
        return Fault(HealthReason.HTTP_STATUS, f"{name} answered HTTP {answer.status}.")
    return Fault(HealthReason.NOT_MCP, f"{name} answered, but not with {expected} ({answer}).")


def fault_of_network(
    target: Target, fault: BaseException, port: int | None, timeout: float
) -> Fault:
    """Judge a request that found no answer. `timeout` (seconds) is what a message says when the
    time was over."""
    name = target.label
    where = f" on port {port}" if port else ""
    for cause in causes_of(fault):
        if isinstance(cause, Blocked):
            return Fault(
                HealthReason.BLOCKED,
                f"The address of {name} is not allowed by the outbound policy.",
            )
        if isinstance(cause, NameNotFound):
            return Fault(HealthReason.DNS, f"The name {name} was not found.")
        if isinstance(cause, BadAddress | httpx2.InvalidURL | httpx2.UnsupportedProtocol):
            return Fault(
                HealthReason.BLOCKED, f"The address of {name} is not a plain http or https address."
            )
        if isinstance(cause, RedirectRefused):
            return Fault(
                HealthReason.HTTP_STATUS,
                f"{name} redirects to another address, which is not followed.",
            )
        if isinstance(cause, AnswerRefused):
            return Fault(HealthReason.NOT_MCP, f"{name} {cause.said}")
        if isinstance(cause, httpx2.SSEError) and "byte limit" in str(cause):
            said = (
                f"{name} sent an event of more than {in_words(MAX_EVENT_BYTES)}. It has to send"
                " smaller ones."
            )
            return Fault(HealthReason.NOT_MCP, said)
        if isinstance(cause, Unfinished):
            return Fault(
                HealthReason.TIMEOUT, f"{name} did not finish its answer within {timeout:g} s."
            )
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f" ({cause.verify_message})" if cause.verify_message else ""
            return Fault(HealthReason.TLS, f"TLS: the certificate of {name} is not valid{why}.")
        if isinstance(cause, ssl.SSLError):
            return Fault(
                HealthReason.TLS,
                f"TLS: {name} and the portal did not agree on a secure connection{where}.",
            )
        if isinstance(cause, ConnectionRefusedError):
            return Fault(HealthReason.REFUSED, f"{name} refused the connection{where}.")
        if isinstance(cause, httpx2.ConnectTimeout):
            return timed_out(target, min(timeout, CONNECT_TIMEOUT))
        if isinstance(cause, httpx2.TimeoutException | httpcore2.TimeoutException):
            return timed_out(target, timeout)
        if isinstance(cause, httpx2.ProtocolError):
            return Fault(HealthReason.NOT_MCP, f"{name} answered{where}, but not with HTTP.")
    if isinstance(fault, httpx2.ConnectError):
        return Fault(HealthReason.REFUSED, f"{name} could not be reached{where}.")
    return Fault(HealthReason.REFUSED, f"{name} broke off the connection{where}.")


def timed_out(target: Target, timeout: float) -> Fault:
    return Fault(HealthReason.TIMEOUT, f"{target.label} did not answer within {timeout:g} s.")
