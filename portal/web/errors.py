"""Error responses: JSON for the API, pages and fragments for browsers."""

import logging
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import orjson
from flask import Flask, Response, g, request, url_for
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from portal.domain import errors
from portal.store.faults import DatabaseFault, fault_of
from portal.telemetry import metrics
from portal.telemetry.logs import code_places
from portal.web import limits
from portal.web.context import PasswordChangeNeeded, note_refusal, settings, speaks_json
from portal.web.rendering import is_boosted, is_fragment_request, page, see_other
from portal.web.request_auth import speaks_oauth

log = logging.getLogger("portal.web")

STATUS: dict[type[errors.PortalError], int] = {
    errors.InvalidRequest: 400,
    errors.InvalidInput: 422,
    errors.Unauthenticated: 401,
    errors.CredentialNeeded: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.MissingVariables: 412,
    errors.TooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.RateLimited: 429,
    errors.UpstreamFailure: 502,
    errors.UpstreamTimeout: 504,
    errors.Unavailable: 503,
    errors.Misconfigured: 500,
}
_TITLES = {
    400: "Bad request",
    401: "Sign in to continue",
    403: "You do not have permission to do this",
    404: "Page not found, or you do not have access",
    405: "Method not allowed",
    409: "Changed by someone else",
    412: "Your credentials are required",
    413: "Request too large",
    415: "Unsupported format",
    422: "Check your input",
    429: "Too many requests",
    500: "Something went wrong",
    502: "The MCP server returned an error",
    503: "Portal unavailable",
    504: "The MCP server timed out",
}
_CODES = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
}
_OAUTH_WORDS = {
    "unauthenticated": "invalid_client",
    "invalid": "invalid_request",
    "forbidden": "access_denied",
}
_MESSAGES = {
    404: "Page not found. Check the URL, or go to the list of servers.",
    405: "This URL does not support the request method.",
    413: "The request is larger than the portal allows.",
}
_NOT_STORED = "No changes were saved."
_DATABASE_WORDS = {
    DatabaseFault.GONE: "The portal’s database is not responding. Try again in a few seconds.",
    DatabaseFault.BUSY: (
        f"The portal’s database is busy. {_NOT_STORED} Try again in a few seconds."
    ),
    DatabaseFault.FULL: (
        f"The disk of the portal’s database is full. {_NOT_STORED} You can still read existing"
        " data. Ask the operator of the portal to free some space, then try again."
    ),
    DatabaseFault.READ_ONLY: (
        f"The portal’s database is read-only. {_NOT_STORED} Contact the operator of the portal."
    ),
    DatabaseFault.OTHER_SCHEMA: (
        f"The portal’s database schema does not match this version. {_NOT_STORED} Ask the"
        " operator of the portal to run `portal doctor`."
    ),
}


def init_app(app: Flask) -> None:
    """Register the error handlers."""
    app.register_error_handler(errors.PortalError, _portal_error)
    app.register_error_handler(PasswordChangeNeeded, _password_first)
    app.register_error_handler(CSRFError, _csrf_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(DataError, _bad_data)
    app.register_error_handler(UnicodeEncodeError, _bad_data)
    app.register_error_handler(DBAPIError, _no_database)
    app.register_error_handler(PoolTimeout, _no_database)
    app.register_error_handler(Exception, _unexpected)


def answer(
    status: int, code: str, message: str, *, field: str | None = None, **extra: Any
) -> Response:
    """Return an error response. This is the only function that builds the error body."""
    if "session" in g:
        with suppress(SQLAlchemyError):  # the session may be the cause of the error
            g.session.rollback()
    if speaks_json():
        detail = {"error": code, "message": message, "field": field, **extra}
        body = _oauth_error(code, message, detail) if speaks_oauth() else {"detail": detail}
        response = Response(orjson.dumps(body), status, mimetype="application/json")
    else:
        remedy = extra.get("setup_url") or extra.get("connect_url")
        if status >= 500:
            g.pop("profile", None)  # with it, the layout would query the database, which may fail
        response = page(
            "errors/error.html",
            fragment="alert",
            status=status,
            status_code=status,
            title=_TITLES.get(status, _TITLES[400]),
            message=message,
            code=code,
            remedy_url=remedy or url_for("grid.index"),
            remedy_label="Add your credentials" if remedy else "All servers",
        )
        if is_fragment_request() or is_boosted():
            # An error never replaces the submitted form.
            response.headers["HX-Retarget"], response.headers["HX-Reswap"] = "#alerts", "innerHTML"
    if status == 401:
        needs_key = code in ("byok_auth_required", "sign_in_needed")
        response.headers["WWW-Authenticate"] = (
            _where_to_sign_in(str(extra.get("server_id"))) if needs_key else "Bearer"
        )
    if status == 503:
        response.headers["Retry-After"] = "5"
    return response


def _oauth_error(code: str, message: str, detail: dict[str, Any]) -> dict[str, Any]:
    """Return an error body of RFC 6749, section 5.2.

    For a missing client ID, `detail` is also set, where LiteLLM puts the error.
    """
    body: dict[str, Any] = {"error": _OAUTH_WORDS.get(code, code), "error_description": message}
    if code == "missing_client_id":
        body["detail"] = detail
    return body | {
        name: detail[name] for name in ("field", "server_id", "hint") if detail.get(name)
    }


def _where_to_sign_in(server_id: str) -> str:
    """Return the challenge with the URL of a server's metadata (RFC 9728, section 5.1)."""
    path = f"/.well-known/oauth-protected-resource/{quote(server_id, safe='')}/mcp"
    return f'Bearer resource_metadata="{settings().public_url}{path}"'


def status_of(error: errors.PortalError) -> int:
    """Return the HTTP status of an error, from its class or the nearest base class."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def _portal_error(error: errors.PortalError) -> Any:
    if isinstance(error, errors.Unauthenticated) and not speaks_json():
        target = (
            request.full_path.rstrip("?")
            if request.method == "GET" and not is_fragment_request()
            else None
        )
        return see_other(url_for("accounts.sign_in", next=target))
    if isinstance(error, errors.Forbidden):
        metrics.security("forbidden")
        _note_refusal(error)
        is_seen = isinstance(error, errors.LookOnly) and request.method != "GET"
        if not is_seen and not speaks_json():
            # For a user without access, the page does not exist.
            return answer(404, "not_found", _MESSAGES[404])
    extra = dict(error.extra)
    if isinstance(error, errors.InvalidInput):
        extra["errors"] = [{"field": field, "message": message} for field, message in error.errors]
    response = answer(status_of(error), error.code, error.message, field=error.field, **extra)
    if isinstance(error, errors.UnsupportedEncoding):
        response.headers["Accept-Encoding"] = "identity"  # RFC 9110, section 15.5.16
    if isinstance(error, errors.RateLimited):
        metrics.security("rate_limited")
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _note_refusal(error: errors.Forbidden) -> None:
    try:
        note_refusal(error.message)
    except (DBAPIError, PoolTimeout):  # no changes were saved, so the response does not change
        metrics.security("audit_failed")
        log.warning("could not audit the refused request %s", g.get("request_id"))


def _password_first(_error: PasswordChangeNeeded) -> Response:
    if speaks_json():
        return answer(
            403, "forbidden", "Change your one-time password first. Sign in to the portal."
        )
    return see_other(url_for("accounts.password"))


def _csrf_error(_error: CSRFError) -> Response:
    metrics.security("csrf_refused")
    return answer(
        400,
        "invalid_request",
        "The form has expired, or was sent from another site. Reload the page and try again.",
        field="csrf_token",
    )


def _http_error(error: HTTPException) -> Any:
    status = error.code or 500
    if status < 400:
        return error
    if status == 429:
        return _too_many()
    message = (
        _MESSAGES.get(status)
        or (error.description if status == 400 else None)
        or _TITLES.get(status)
    )
    response = answer(
        status, _CODES.get(status, "invalid_request"), message or "The request is not valid."
    )
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _too_many() -> Response:
    metrics.security("rate_limited")
    seconds = limits.seconds_to_wait()
    wait = f"{seconds} seconds" if seconds < 100 else f"{-(-seconds // 60)} minutes"
    response = answer(429, _CODES[429], f"Too many requests. Try again in {wait}.")
    response.headers["Retry-After"] = str(seconds)
    return response


def _bad_data(_error: Exception) -> Response:
    return answer(
        400, "invalid_request", "The input contains a character or number that cannot be stored."
    )


def _no_database(error: DBAPIError | PoolTimeout) -> Response:
    fault = fault_of(error)
    if fault is None:
        return _unexpected(error)
    log.warning(
        "database fault %s (%s) in request %s", fault, type(error).__name__, g.get("request_id")
    )
    metrics.count("portal_database_failures_total", fault)
    return answer(503, "unavailable", _DATABASE_WORDS[fault])


def _unexpected(error: Exception) -> Response:
    # The text of the exception may contain input, so only its class and location are logged.
    at = " < ".join(code_places(error))
    log.error("unexpected %s in request %s at %s", type(error).__name__, g.get("request_id"), at)
    return answer(
        500,
        "internal_error",
        f"Contact an Admin and give them the request ID {g.get('request_id')}.",
    )
