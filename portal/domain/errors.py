"""What can go wrong, in the words of the product. `web/errors.py` alone knows which HTTP status
each one is."""

from collections.abc import Sequence


class PortalError(Exception):
    """A fault that a person can act on.

    `message` is for people, `code` a stable word for programs, `field` the input at fault, and
    `extra` what else the answer carries. None of them ever holds a secret or an echo of what was
    typed, ids and names excepted.
    """

    code = "error"

    def __init__(
        self, message: str, *, code: str | None = None, field: str | None = None, **extra: object
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.field = field
        self.extra = extra


class InvalidRequest(PortalError):
    """A rule is broken."""

    code = "invalid_request"


class InvalidInput(PortalError):
    """The input has the wrong shape; `errors` names every field at fault."""

    code = "invalid"

    def __init__(
        self, message: str, *, field: str | None = None, errors: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message, field=field)
        self.errors = tuple(errors) or ((field or "", message),)


class Unauthenticated(PortalError):
    """Nobody we know is asking."""

    code = "unauthenticated"


class CredentialNeeded(PortalError):
    """The upstream needs the caller's own key (`byok_auth_required`) or OAuth connection
    (`sign_in_needed`)."""

    code = "sign_in_needed"


class Forbidden(PortalError):
    """May not; also all that a caller without admin view may not see, existing or not."""

    code = "forbidden"


class LookOnly(Forbidden):
    """May not, and sees what it is about: a page says so, where for other refusals it says that
    nothing is there."""


class NotFound(PortalError):
    """There is no such thing, told only to those who may know."""

    code = "not_found"


class Conflict(PortalError):
    """A clash with what is stored."""

    code = "conflict"


class MissingVariables(PortalError):
    """Per-user values of a server are not set; carries `server_id`, `server_name`, `names` and
    `setup_url`."""

    code = "missing_user_env_vars"


class TooLarge(PortalError):
    """More bytes than we take."""

    code = "too_large"


class Misconfigured(PortalError):
    """A setting of the instance cannot be followed; an Admin has to mend it."""

    code = "misconfigured"


class UnsupportedMediaType(PortalError):
    """A body in a format that this route does not read."""

    code = "unsupported_media_type"


class UnsupportedEncoding(UnsupportedMediaType):
    """A body that is compressed, where none is unpacked."""


class RateLimited(PortalError):
    """Too often; `retry_after` is in seconds."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamFailure(PortalError):
    """An upstream was reached for and failed; `reason` is one of the health words."""

    code = "upstream_failed"

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason)
        self.reason = reason


class InsufficientScope(UpstreamFailure):
    """An upstream takes the token, but wants more rights for what was asked (RFC 6750, 3.1): these
    `scopes`."""

    def __init__(self, message: str, scopes: Sequence[str]) -> None:
        super().__init__(message, reason="sign_in_needed")
        self.scopes = tuple(scopes)


class UpstreamTimeout(UpstreamFailure):
    """An upstream did not answer within its time limit."""

    code = "upstream_timeout"

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="timeout")


class Unavailable(PortalError):
    """Our own database does not answer now."""

    code = "unavailable"


class Busy(Unavailable):
    """So many requests wait for upstreams that no more may, or none would be left for what needs no
    upstream."""

    code = "busy"
