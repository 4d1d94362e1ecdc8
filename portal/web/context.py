"""The caller and database session of a request: default deny, CSRF and the commit."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from flask import Flask, Response, current_app, g, request
from flask import session as browser_session
from flask_login import LoginManager, current_user, login_user
from flask_wtf.csrf import CSRFProtect
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import BadRequest

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.addresses import Arrival
from portal.domain.errors import Forbidden, LookOnly, Unauthenticated
from portal.domain.principals import STRANGER, Principal
from portal.services import audit
from portal.services.access import principals
from portal.services.audit import Outcome
from portal.settings import Settings
from portal.store.database import Database
from portal.telemetry import metrics
from portal.web import host_check
from portal.web.request_auth import marks, presented_key, wants_page

_WAYS = ("", "_by_name", "_from_root", "_at_root")
_DOCUMENTS = (
    "resource",
    "resource_at_root",
    "resource_below_mcp",
    "resource_of_all",
    "resource_of_toolset",
    "authorization_server",
    "server_at_root",
)
OPEN_ENDPOINTS = {
    "static": "style sheets, scripts and icons contain no user data",
    "healthz": "liveness probe",
    "readyz": "readiness probe",
    "metrics": "disabled unless the operator enables it",
    "accounts.sign_in": "anonymous users sign in here",
    "sign_in.start": "redirects to an OpenID provider to sign in",
    "sign_in.callback": "callback of the OpenID provider",
    **{f"oauth_broker.authorize{way}": "some servers allow anonymous callers" for way in _WAYS},
    **{f"oauth_broker.token{way}": "clients exchange their code for a token" for way in _WAYS},
    **{
        f"oauth_broker.{of}": "consent of anonymous callers, in their browser"
        for of in ("consent", "decide")
    },
    "oauth_metadata.register": "checks the key or session itself",
    **{
        f"oauth_metadata.register{way}": "RFC 7591: client registration; it grants no access"
        for way in (*_WAYS[1:], "_at_issuer")
    },
    **{
        f"oauth_metadata.{of}": "RFC 9728, RFC 8414: clients read metadata before they sign in"
        for of in _DOCUMENTS
    },
    "api_registry.gateway": (
        "clients read a registry without credentials; disabled unless an Admin enables it"
    ),
    "api_registry.list_entries": "registry, in the format of the official registry API",
    "api_registry.list_versions": "registry, in the format of the official registry API",
    "api_registry.get_version": "registry, in the format of the official registry API",
    "api_document.get_document": (
        "tools read an API's description without credentials; it contains no user data"
    ),
    "oauth_server.token": "an MCP client redeems its code; the PKCE verifier authenticates it",
    "oauth_server.revoke": "RFC 7009: the holder of a token may revoke it",
    "oauth_byok.token_at_old_address": "old URL of oauth_server.token",
    "oauth_byok.ask_at_old_address": "redirects to the consent page",
    "oauth_callback.came_back": (
        "callback of authorization servers; the state and the browser's cookie authenticate it"
    ),
    "oauth_documents.client": "authorization servers read the portal's client metadata here",
    "hub.index": "the registry as a page; enabled together with the registry",
}
_BEFORE_A_NEW_PASSWORD = {"accounts.password", "accounts.sign_out"}
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

_TARGETS = {
    "server_id": "server",
    "team_id": "team",
    "user_id": "user",
    "key_id": "key",
    "group_id": "access_group",
    "access_group_id": "access_group",
    "toolset_id": "toolset",
}

csrf = CSRFProtect()
login_manager = LoginManager()


class SignedIn:
    """The user for Flask-Login. Every request checks again whether they may sign in."""

    is_authenticated = True
    is_active = True
    is_anonymous = False

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id

    def get_id(self) -> str:
        """Return the user ID for Flask-Login."""
        return self.user_id


def database() -> Database:
    """Return the database of this process."""
    found = current_app.extensions["database"]
    assert isinstance(found, Database)
    return found


def settings() -> Settings:
    """Return the operator's settings."""
    found = current_app.extensions["settings"]
    assert isinstance(found, Settings)
    return found


def speaks_json() -> bool:
    """Return whether this request gets a JSON response."""
    if (kind := marks().get("speaks")) is not None:
        return kind != "browser" or not (wants_page() and presented_key() is None)
    return request.path.startswith(("/v1/", "/v0.1/"))


def reads_only(view: Any) -> Any:
    """Mark a POST view that writes nothing, such as a test call, so that it takes no write lock."""
    view.reads_only = True
    return view


def also_writes(view: Any) -> Any:
    """Mark a GET view that writes, such as an OAuth callback."""
    view.also_writes = True
    return view


def known_person() -> Principal | None:
    """Return the signed-in user of an open endpoint and set `g.principal`, or return None."""
    if not current_user.is_authenticated:
        return None
    try:
        g.principal, g.profile = principals.person_of(g.session, current_user.get_id(), g.address)
    except Unauthenticated:
        return None
    return None if g.profile.must_change_password else g.principal


def identify() -> None:
    """Authenticate the caller. Every endpoint not in `OPEN_ENDPOINTS` needs a principal."""
    host_check.check(settings().public_url)
    host_check.refuse_encoded_body()
    if request.endpoint is None:
        return
    fault = browser_session.fault  # type: ignore[attr-defined]
    if fault is not None and request.endpoint not in host_check.ANY_HOST_ENDPOINTS:
        raise fault  # the caller cannot be authenticated, but is not signed out either
    g.address = host_check.client_address(database(), settings().trusted_proxies)
    is_open = request.endpoint in OPEN_ENDPOINTS
    of_broker = marks()
    takes_key = of_broker.get("asks") if of_broker else speaks_json() and not is_open
    key = presented_key() if takes_key else None
    if key is not None:
        _identify_key(key)
    view = current_app.view_functions[request.endpoint]
    # The session opens after the key is recorded as used: it holds SQLite's write lock, and the
    # key use is written in a separate transaction.
    writes = getattr(view, "also_writes", False) or (
        _is_unsafe() and not getattr(view, "reads_only", False)
    )
    g.session = database().session(writes=writes)
    if of_broker:
        if key is None:
            _identify_anybody(asks_who=bool(of_broker["asks"]))
    elif is_open and _is_unsafe():
        _check_csrf()
    elif not is_open and key is None:
        _identify_person()


def init_app(app: Flask) -> None:
    """Register authentication, CSRF protection and the commit on the application."""
    app.config.update(
        WTF_CSRF_CHECK_DEFAULT=False, WTF_CSRF_TIME_LIMIT=None, WTF_CSRF_SSL_STRICT=False
    )
    csrf.init_app(app)
    login_manager.init_app(app)
    login_manager.session_protection = None  # the portal has its own sessions
    login_manager.user_loader(lambda user_id: SignedIn(user_id))
    app.before_request(identify)
    app.teardown_request(_close)


def _identify_key(key: str) -> None:
    with database().session() as own:
        try:
            g.principal = principals.principal_for_key(own, key, g.address)
        except Unauthenticated:
            metrics.security("key_refused")
            raise
        is_noted = principals.is_use_noted(own, g.principal)
    if not is_noted:
        with database().noting() as own:  # is kept even if the request is refused
            principals.note_key_use(own, g.principal)
    if not authz.may_take_route(g.principal, request.path):
        raise Forbidden("This API key does not have access to this route.")


def _identify_person() -> None:
    if not current_user.is_authenticated:
        raise Unauthenticated(
            "A valid API key is required." if speaks_json() else "Sign in to continue."
        )
    g.principal, profile = principals.person_of(g.session, current_user.get_id(), g.address)
    if _is_unsafe():
        _check_csrf()
    g.profile = profile
    if g.profile.must_change_password and request.endpoint not in _BEFORE_A_NEW_PASSWORD:
        raise PasswordChangeNeeded


def _identify_anybody(*, asks_who: bool) -> None:
    """Set the principal to the signed-in user or to an anonymous caller."""
    g.principal = principals.stranger(g.session, g.address)
    if asks_who and current_user.is_authenticated:
        with suppress(Unauthenticated):
            _identify_person()


class PasswordChangeNeeded(Exception):
    """The user signed in with a one-time password and must change it first."""


def _check_csrf() -> None:
    """Check the CSRF token and, if the browser sent it, the `Sec-Fetch-Site` header."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        metrics.security("csrf_refused")
        raise BadRequest("This request was sent from another site.")
    csrf.protect()


def arrival() -> Arrival:
    """Return the addresses that this request came from."""
    return Arrival(
        request.remote_addr,
        request.headers.get("X-Forwarded-For"),
        tuple(settings().trusted_proxies),
    )


def _is_unsafe() -> bool:
    return request.method not in _SAFE_METHODS


def commit_or_undo(response: Response) -> Response:
    """Commit a successful request or roll back a failed one, and save the browser's session.

    Must run first after the view, so that an error here becomes the response.
    """
    try:
        if "session" in g:
            if response.status_code >= 400:
                g.session.rollback()
            else:
                g.session.commit()
        current_app.session_interface.save_session(current_app, browser_session, response)
    except SQLAlchemyError as error:
        browser_session.fault = error  # type: ignore[attr-defined]
        return current_app.make_response(current_app.handle_user_exception(error))
    return response


def only_with_admin_view() -> None:
    """Raise `Forbidden` if the caller has no admin view."""
    if not authz.has_admin_view(g.principal):
        raise Forbidden("You do not have permission to do this.")


def may_change(action: Action) -> None:
    """Raise `LookOnly` if this request is a change that the caller may not make."""
    if _is_unsafe() and not authz.may(g.principal, action):
        raise LookOnly("You have read-only access. You cannot change this.")


def commit_now() -> None:
    """Commit now, before a request to an upstream, so that its failure does not undo the change."""
    g.session.commit()


def note_refusal(because: str) -> None:
    """Audit a refused change by a known caller, and roll the change back."""
    if "principal" not in g or not _is_unsafe() or request.url_rule is None:
        return
    kind, target_id = next(
        (
            (_TARGETS[name], str(value)[:320])
            for name, value in (request.view_args or {}).items()
            if name in _TARGETS
        ),
        ("route", None),
    )
    action = f"{request.method} {request.url_rule.rule}"[:64]
    _record_apart(g.principal, action, kind, target_id, because=because)


def note_failed_sign_in() -> None:
    """Audit a failed sign-in with its address, without the input."""
    metrics.security("sign_in_failed")
    _record_apart(replace(STRANGER, address=g.address), "sign-in failed", "user", None)


def _record_apart(
    principal: Principal, action: str, kind: str, target_id: str | None, **details: object
) -> None:
    """Write an audit event in a separate transaction, after rolling back that of the request."""
    if "session" in g:
        g.session.rollback()
    with database().session(writes=True) as own:
        audit.record(own, principal, action, kind, target_id, outcome=Outcome.REFUSED, **details)
        own.commit()


def _close(_error: BaseException | None) -> None:
    opened = g.pop("session", None)
    if opened is not None:
        opened.close()


def sign_in(user_id: str) -> None:
    """Start a session for the user with a new ID and no data of the anonymous session."""
    browser_session.clear()
    browser_session.renew()  # type: ignore[attr-defined]
    browser_session["agent"] = request.headers.get("User-Agent", "")[:200]
    login_user(SignedIn(user_id))


def sign_out() -> None:
    """End the browser's session."""
    browser_session.clear()
