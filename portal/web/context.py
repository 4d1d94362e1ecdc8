"""Who asks and through which session: default deny, CSRF, and the one place that commits."""

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
    "static": "stylesheet, script and icons hold nothing of anybody",
    "healthz": "tells that the process lives",
    "readyz": "tells a load balancer whether to send requests",
    "metrics": "off unless the operator switches it on",
    "accounts.sign_in": "where strangers become known",
    "sign_in.start": "likewise: out to an OpenID provider",
    "sign_in.callback": "and back",
    **{f"oauth_broker.authorize{way}": "strangers sign in where a server says so" for way in _WAYS},
    **{f"oauth_broker.token{way}": "as above: they exchange their code" for way in _WAYS},
    **{
        f"oauth_broker.{of}": "as above: they are asked, in their browser"
        for of in ("consent", "decide")
    },
    "oauth_metadata.register": "decides by itself: a key or a session",
    **{
        f"oauth_metadata.register{way}": "RFC 7591: clients make themselves known; opens nothing"
        for way in (*_WAYS[1:], "_at_issuer")
    },
    **{
        f"oauth_metadata.{of}": "RFC 9728, RFC 8414: how to get in must be readable"
        for of in _DOCUMENTS
    },
    "api_registry.gateway": (
        "clients read a registry without credentials; off unless an Admin enables it"
    ),
    "api_registry.list_entries": "as above, in the words of the official registry API",
    "api_registry.list_versions": "as above",
    "api_registry.get_version": "as above",
    "api_document.get_document": (
        "tools read an API's description without credentials; it holds nothing of anybody"
    ),
    "oauth_server.token": "an MCP client redeems its code; the code and the PKCE verifier decide",
    "oauth_server.revoke": "RFC 7009: whoever holds a token may end it",
    "oauth_byok.token_at_old_address": "as for the other token endpoints",
    "oauth_byok.ask_at_old_address": "leads to the page that asks",
    "oauth_callback.came_back": (
        "whoever an authorization server sends back; the state and the browser's cookie decide"
    ),
    "oauth_documents.client": "authorization servers read there who the portal is as a client",
    "hub.index": "the registry for people; on and off with it",
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
    """What Flask-Login keeps of a person; whether they still may come in is asked anew with every
    request."""

    is_authenticated = True
    is_active = True
    is_anonymous = False

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id

    def get_id(self) -> str:
        """The person's id, as Flask-Login asks for it."""
        return self.user_id


def database() -> Database:
    """The database of this process."""
    found = current_app.extensions["database"]
    assert isinstance(found, Database)
    return found


def settings() -> Settings:
    """The operator's settings."""
    found = current_app.extensions["settings"]
    assert isinstance(found, Settings)
    return found


def speaks_json() -> bool:
    """Whether this request came by the API door."""
    if (kind := marks().get("speaks")) is not None:
        return kind != "browser" or not (wants_page() and presented_key() is None)
    return request.path.startswith(("/v1/", "/v0.1/"))


def reads_only(view: Any) -> Any:
    """Mark a POST that changes nothing itself (it asks an upstream), so that it takes no write lock
    meanwhile."""
    view.reads_only = True
    return view


def also_writes(view: Any) -> Any:
    """Mark a GET that writes: the way back of a redirect, which browsers take by GET."""
    view.also_writes = True
    return view


def known_person() -> Principal | None:
    """Who is signed in, where strangers are let in too; they are `g.principal` from here on."""
    if not current_user.is_authenticated:
        return None
    try:
        g.principal, g.profile = principals.person_of(g.session, current_user.get_id(), g.address)
    except Unauthenticated:
        return None
    return None if g.profile.must_change_password else g.principal


def identify() -> None:
    """Find out who asks. Every endpoint that is not in `OPEN_ENDPOINTS` needs a principal."""
    host_check.check(settings().public_url)
    host_check.refuse_encoded_body()
    if request.endpoint is None:
        return
    fault = browser_session.fault  # type: ignore[attr-defined]
    if fault is not None and request.endpoint not in host_check.ANY_HOST_ENDPOINTS:
        raise fault  # who asks cannot be known: neither a stranger nor signed out
    g.address = host_check.client_address(database(), settings().trusted_proxies)
    is_open = request.endpoint in OPEN_ENDPOINTS
    of_broker = marks()
    key = (
        presented_key()
        if (of_broker.get("asks") if of_broker else speaks_json() and not is_open)
        else None
    )
    if key is not None:
        _identify_key(key)
    view = current_app.view_functions[request.endpoint]
    # Only now: from here on SQLite's write lock is held, and the use of a key is noted in a
    # transaction of its own.
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
    """Hang the above on the application."""
    app.config.update(
        WTF_CSRF_CHECK_DEFAULT=False, WTF_CSRF_TIME_LIMIT=None, WTF_CSRF_SSL_STRICT=False
    )
    csrf.init_app(app)
    login_manager.init_app(app)
    login_manager.session_protection = (
        None  # sessions are ours, and bound to nothing that changes under way
    )
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
        with database().noting() as own:  # survives a request that is refused
            principals.note_key_use(own, g.principal)
    if not authz.may_take_route(g.principal, request.path):
        raise Forbidden("This API key may not call this route.")


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
    """Who is signed in, else a stranger, whom the one rule for strangers lets in or not."""
    g.principal = principals.stranger(g.session, g.address)
    if asks_who and current_user.is_authenticated:
        with suppress(Unauthenticated):
            _identify_person()


class PasswordChangeNeeded(Exception):
    """A one-time password was used: the person chooses their own before anything else."""


def _check_csrf() -> None:
    """A token of this session (OWASP), and where the browser says where it comes from, from
    here."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        metrics.security("csrf_refused")
        raise BadRequest("This request came from another site.")
    csrf.protect()


def arrival() -> Arrival:
    """How this request came in."""
    return Arrival(
        request.remote_addr,
        request.headers.get("X-Forwarded-For"),
        tuple(settings().trusted_proxies),
    )


def _is_unsafe() -> bool:
    return request.method not in _SAFE_METHODS


def commit_or_undo(response: Response) -> Response:
    """Commit what a request that went well wrote, and save its browser's session. Has to run first
    after it: what fails here is the answer then."""
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
    """Refuse everybody else, whatever they ask: for them nothing is here."""
    if not authz.has_admin_view(g.principal):
        raise Forbidden("You may not do this.")


def may_change(action: Action) -> None:
    """Refuse a change on a page that the caller sees, before what they sent is read."""
    if _is_unsafe() and not authz.may(g.principal, action):
        raise LookOnly("You may look at this, and not change it.")


def commit_now() -> None:
    """Finish what was written before an upstream is asked about it: what was saved stays, whatever
    that answers."""
    g.session.commit()


def note_refusal(because: str) -> None:
    """Put on record that somebody who is known was refused a change; what they began is undone."""
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
    """Put on record that a sign-in failed: from where, and nothing of what was typed."""
    metrics.security("sign_in_failed")
    _record_apart(replace(STRANGER, address=g.address), "sign-in failed", "user", None)


def _record_apart(
    principal: Principal, action: str, kind: str, target_id: str | None, **details: object
) -> None:
    """Write an event in a transaction of its own, which outlives that of the request: that one is
    given up first."""
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
    """Begin a person's session under a new id, with nothing of the stranger's."""
    browser_session.clear()
    browser_session.renew()  # type: ignore[attr-defined]
    browser_session["agent"] = request.headers.get("User-Agent", "")[:200]
    login_user(SignedIn(user_id))


def sign_out() -> None:
    """End the session."""
    browser_session.clear()
