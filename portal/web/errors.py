"""One error, one answer: JSON for the API, a page or a piece of one for people."""

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
from portal.telemetry.logs import places
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
    400: "That did not work",
    401: "Sign in first",
    403: "You may not do this",
    404: "There is nothing here",
    405: "This address does not take that",
    409: "Somebody was faster",
    412: "Your values are needed",
    413: "That is too much",
    415: "This format is not read here",
    422: "Something is not right yet",
    429: "Too many tries",
    500: "Something went wrong on our side",
    502: "The MCP server did not play along",
    503: "The portal cannot answer now",
    504: "The MCP server took too long",
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
    404: "There is no such page. Check the address, or begin at the list of servers.",
    405: "This address does not take this kind of request.",
    413: "The request is larger than the portal takes.",
}
_NOT_STORED = "Nothing of this request was stored."
_DATABASE_WORDS = {
    DatabaseFault.GONE: "The portal’s database does not answer now. Try again in a few seconds.",
    DatabaseFault.BUSY: (
        f"Something else is changing the portal’s database. {_NOT_STORED} Try again in a few"
        " seconds."
    ),
    DatabaseFault.FULL: (
        f"The disk of the portal’s database is full. {_NOT_STORED} What was stored before can be"
        " read. Tell whoever runs the portal to free some space, then try again."
    ),
    DatabaseFault.READ_ONLY: (
        f"The portal’s database takes no changes now. {_NOT_STORED} Tell whoever runs the portal."
    ),
    DatabaseFault.OTHER_SCHEMA: (
        f"The portal’s database lacks something that this version needs. {_NOT_STORED} "
        "Tell whoever runs the portal: `portal doctor` says more."
    ),
}


def init_app(app: Flask) -> None:
    """Answer every kind of error in one way."""
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
    """The only line that knows the envelope."""
    if "session" in g:
        with suppress(SQLAlchemyError):  # it may be what failed
            g.session.rollback()
    if speaks_json():
        detail = {"error": code, "message": message, "field": field, **extra}
        body = _oauth_error(code, message, detail) if speaks_oauth() else {"detail": detail}
        response = Response(orjson.dumps(body), status, mimetype="application/json")
    else:
        remedy = extra.get("setup_url") or extra.get("connect_url")
        if status >= 500:
            g.pop(
                "profile", None
            )  # the frame around a page asks the database, which may be what failed
        response = page(
            "errors/error.html",
            fragment="alert",
            status=status,
            status_code=status,
            title=_TITLES.get(status, _TITLES[400]),
            message=message,
            code=code,
            remedy_url=remedy or url_for("grid.index"),
            remedy_label="Fill in what is missing" if remedy else "All servers",
        )
        if is_fragment_request() or is_boosted():
            # Whatever the status, an error never takes the place of the form that was sent.
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
    """An error of RFC 6749, 5.2: at the top level. A missing client id is told in LiteLLM's place
    as well."""
    body: dict[str, Any] = {"error": _OAUTH_WORDS.get(code, code), "error_description": message}
    if code == "missing_client_id":
        body["detail"] = detail
    return body | {
        name: detail[name] for name in ("field", "server_id", "hint") if detail.get(name)
    }


def _where_to_sign_in(server_id: str) -> str:
    """The challenge that leads clients to a server's metadata (RFC 9728, 5.1)."""
    metadata = f"{settings().public_url}/.well-known/oauth-protected-resource/{quote(server_id, safe='')}/mcp"
    return f'Bearer resource_metadata="{metadata}"'


def status_of(error: errors.PortalError) -> int:
    """The HTTP status of an error, its own or that of the nearest kind it is of."""
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
            # What someone may not see looks to them as if it were not there.
            return answer(404, "not_found", _MESSAGES[404])
    extra = dict(error.extra)
    if isinstance(error, errors.InvalidInput):
        extra["errors"] = [{"field": field, "message": message} for field, message in error.errors]
    response = answer(status_of(error), error.code, error.message, field=error.field, **extra)
    if isinstance(error, errors.UnsupportedEncoding):
        response.headers["Accept-Encoding"] = "identity"  # RFC 9110, 15.5.16
    if isinstance(error, errors.RateLimited):
        metrics.security("rate_limited")
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _note_refusal(error: errors.Forbidden) -> None:
    try:
        note_refusal(error.message)
    except (DBAPIError, PoolTimeout):  # nothing was changed: the answer stays a refusal
        metrics.security("audit_failed")
        log.warning("a refusal in request %s could not be put on record", g.get("request_id"))


def _password_first(_error: PasswordChangeNeeded) -> Response:
    if speaks_json():
        return answer(
            403, "forbidden", "Choose a password of your own first: sign in to the portal."
        )
    return see_other(url_for("accounts.password"))


def _csrf_error(_error: CSRFError) -> Response:
    metrics.security("csrf_refused")
    return answer(
        400,
        "invalid_request",
        "The form is too old, or came from another page. Load it again and send it once more.",
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
        status, _CODES.get(status, "invalid_request"), message or "The request was not understood."
    )
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _too_many() -> Response:
    metrics.security("rate_limited")
    seconds = limits.seconds_to_wait()
    wait = f"{seconds} seconds" if seconds < 100 else f"{-(-seconds // 60)} minutes"
    response = answer(429, _CODES[429], f"Too many tries. Wait {wait} and try again.")
    response.headers["Retry-After"] = str(seconds)
    return response


def _bad_data(_error: Exception) -> Response:
    return answer(
        400, "invalid_request", "The input holds a character or number that cannot be stored."
    )


def _no_database(error: DBAPIError | PoolTimeout) -> Response:
    fault = fault_of(error)
    if fault is None:
        return _unexpected(error)
    log.warning(
        "the database is %s (%s) in request %s", fault, type(error).__name__, g.get("request_id")
    )
    metrics.count("portal_database_failures_total", fault)
    return answer(503, "unavailable", _DATABASE_WORDS[fault])


def _unexpected(error: Exception) -> Response:
    # The exception's text may hold what was typed, so only its kind and place are logged.
    at = " < ".join(places(error))
    log.error("unexpected %s in request %s at %s", type(error).__name__, g.get("request_id"), at)
    return answer(500, "internal_error", f"Tell an Admin the request id {g.get('request_id')}.")
