"""The exceptions of the portal. `web/errors.py` maps each to an HTTP status."""

from collections.abc import Sequence


class PortalError(Exception):
    """An error that the caller can act on.

    `message` is for people, `code` is a stable error code, `field` is the invalid input, and
    `extra` has more fields for the response. None of them contains secrets or repeats input, except
    IDs and names.
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
    """The request breaks a rule."""

    code = "invalid_request"


class InvalidInput(PortalError):
    """The input is not valid; `errors` lists all invalid fields."""

    code = "invalid"

    def __init__(
        self, message: str, *, field: str | None = None, errors: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message, field=field)
        self.errors = tuple(errors) or ((field or "", message),)


class Unauthenticated(PortalError):
    """The caller is not authenticated."""

    code = "unauthenticated"


class CredentialNeeded(PortalError):
    """The upstream requires the caller's own key or OAuth connection.

    The code is `byok_auth_required` or `sign_in_needed`.
    """

    code = "sign_in_needed"


class Forbidden(PortalError):
    """The caller has no permission, or may not see whether the object exists."""

    code = "forbidden"


class LookOnly(Forbidden):
    """The caller may see the object but not change it, so pages show 403 instead of 404."""


class NotFound(PortalError):
    """The object does not exist. Raised only if the caller may know that."""

    code = "not_found"


class Conflict(PortalError):
    """The change conflicts with the stored state."""

    code = "conflict"


class MissingVariables(PortalError):
    """Per-user values of a server are missing.

    `extra` has `server_id`, `server_name`, `names` and `setup_url`.
    """

    code = "missing_user_env_vars"


class TooLarge(PortalError):
    """The input is too large."""

    code = "too_large"


class Misconfigured(PortalError):
    """An instance setting is not valid; an Admin must fix it."""

    code = "misconfigured"


class UnsupportedMediaType(PortalError):
    """The format of the body is not supported."""

    code = "unsupported_media_type"


class UnsupportedEncoding(UnsupportedMediaType):
    """The body is compressed, which is not supported."""


class RateLimited(PortalError):
    """Too many requests; `retry_after` is in seconds."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamFailure(PortalError):
    """A request to an upstream failed; `reason` is a `HealthReason`."""

    code = "upstream_failed"

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason)
        self.reason = reason


class InsufficientScope(UpstreamFailure):
    """An upstream requires more `scopes` for the request (RFC 6750, section 3.1)."""

    def __init__(self, message: str, scopes: Sequence[str]) -> None:
        super().__init__(message, reason="sign_in_needed")
        self.scopes = tuple(scopes)


class UpstreamTimeout(UpstreamFailure):
    """An upstream did not respond within its timeout."""

    code = "upstream_timeout"

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="timeout")


class Unavailable(PortalError):
    """The portal's database is not available."""

    code = "unavailable"


class Busy(Unavailable):
    """Too many requests are waiting for upstreams. Capacity is reserved for other requests."""

    code = "busy"
