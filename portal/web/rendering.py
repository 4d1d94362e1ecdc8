"""Render pages and fragments, and provide the globals and filters of templates."""

import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import (
    Flask,
    Response,
    current_app,
    g,
    get_flashed_messages,
    make_response,
    redirect,
    request,
    url_for,
)
from jinja2 import Environment
from jinja2.ext import Extension
from jinja2_fragments import render_block
from markupsafe import Markup

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.definition_diff import Warning, definition_of, marked, warnings_of
from portal.services.servers import grid
from portal.services.servers.cards import ServerCard
from portal.services.servers.grid import GridChoices
from portal.services.servers.grid_filters import GridQuery
from portal.services.submissions import review_queue
from portal.web import assets
from portal.web.marking import mark_page

HTMX_CONFIG = json.dumps(
    {
        "allowEval": False,
        "allowScriptTags": False,
        "includeIndicatorStyles": False,
        "selfRequestsOnly": True,
        "historyCacheSize": 0,
        "refreshOnHistoryMiss": True,
        "historyRestoreAsHxRequest": False,
        "timeout": 35000,
        "attributesToSettle": ["class"],  # settling `style` would break the policy
        "responseHandling": [
            {"code": "204", "swap": False},
            {"code": "[23]..", "swap": True},
            {"code": "(409|412|422)", "swap": True},
            {
                "code": "[45]..",
                "swap": True,
                "error": True,
                "target": "#alerts",
                "swapOverride": "innerHTML",
            },
        ],
    }
)


_PICTURES = (".svg", ".png", ".webp", ".jpg", ".ico")


class Icons:
    """`ui.icons.icon(…)`: a symbol of the sprite.

    It is Python instead of a macro for speed, since a page has hundreds of icons.
    """

    def __init__(self, addresses: Mapping[str, str], symbols: Collection[str]) -> None:
        self._sprite, self._files, self._symbols = addresses["icons.svg"], addresses, symbols
        self.icon = lru_cache(maxsize=512)(self._icon)

    def symbol_of(self, logo_url: str | None) -> str:
        """Return the symbol of a `logo_url` like `/static/icons.svg#cloud`, or an empty string."""
        address, _, name = (logo_url or "").partition("#")
        return name if address == "/static/icons.svg" and name in self._symbols else ""

    def is_there(self, logo_url: str) -> bool:
        """Return whether a `logo_url` is one of the portal's own image files."""
        return (
            logo_url.removeprefix("/static/").endswith(_PICTURES)
            and logo_url.removeprefix("/static/") in self._files
        )

    def _icon(self, name: str, label: str = "") -> Markup:
        """Return the icon `name`. Without a label, screen readers ignore it."""
        spoken = (
            Markup('role="img" aria-label="{}"').format(label)
            if label
            else Markup('aria-hidden="true"')
        )
        return Markup('<svg class="icon" {}><use href="{}#{}"/></svg>').format(
            spoken, self._sprite, name
        )


class Components:
    """`ui.badges.missing(…)` in any template: the macros of `templates/components/badges.html`."""

    def __init__(self, environment: Environment, icons: Icons) -> None:
        self._environment = environment
        self.icons = icons

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        module = self._environment.get_template(f"components/{name}.html").module
        setattr(self, name, module)  # later lookups find the attribute directly
        return module


class Drawn:
    """`drawn.card(server)`, `drawn.side(…)`: cached fragments of pages.

    The output depends only on the arguments, which are the cache key: not on the user, a token or
    the time. A fragment that differs between users must get the difference as an argument.
    """

    def __init__(self, components: Components) -> None:
        @lru_cache(maxsize=1024)
        def draw(_root: str, file: str, macro: str, *given: object) -> Markup:
            return Markup(getattr(getattr(components, file), macro)(*given))  # noqa: S704 - rendered by Jinja

        self._draw = draw

    def card(self, server: ServerCard) -> Markup:
        """Return the card of a server."""
        return self._draw(
            request.root_path, "servers", "card", server, ago(server.health.checked_at)
        )

    def row(self, server: ServerCard) -> Markup:
        """Return the table row of a server."""
        return self._draw(
            request.root_path, "servers", "row", server, ago(server.health.checked_at)
        )

    def filter(self, query: GridQuery, choices: GridChoices) -> Markup:
        """Return the filter bar of the grid."""
        return self._draw(request.root_path, "grid", "filter", query, choices)

    def side(self, actions: frozenset[Action], nav: str, needs: int, reviews: int) -> Markup:
        """Return the navigation, with the counts of required actions and pending reviews."""
        return self._draw(request.root_path, "nav", "side", actions, nav, needs, reviews)

    def shortcuts(self, actions: frozenset[Action]) -> Markup:
        """Return the dialog with the keyboard shortcuts."""
        return self._draw(request.root_path, "nav", "shortcuts", actions)


class Person:
    """The signed-in user, for the layout of pages.

    With `counts`, it has the number of servers that need the user's attention and, for reviewers,
    the number of pending submissions. Fragments without the layout do not need them.
    """

    def __init__(self, *, counts: bool = False) -> None:
        profile = g.profile
        self.user_id = profile.user_id
        self.email = profile.email
        self.display_name = profile.display_name
        self.role_label = profile.role_label
        self.theme = profile.theme
        self.dormant_because = profile.dormant_because
        self.admin_view = authz.has_admin_view(g.principal)
        self.actions = authz.allowed_actions(g.principal)
        self.read_only = self.admin_view and Action.SERVER_CREATE not in self.actions
        self.needs_count = grid.needs_count(g.session, g.principal) if counts else 0
        reviews = counts and Action.SUBMISSION_READ in self.actions
        self.review_count = review_queue.waiting_count(g.session, g.principal) if reviews else 0


def is_fragment_request() -> bool:
    """Return whether htmx requests a fragment instead of a whole page."""
    headers = request.headers
    return (
        headers.get("HX-Request") == "true"
        and headers.get("HX-Boosted") != "true"
        and headers.get("HX-History-Restore-Request") != "true"
    )


def is_boosted() -> bool:
    """Return whether htmx submitted a boosted form and replaces the whole page (static/keep.js)."""
    return request.headers.get("HX-Boosted") == "true"


def page(
    template: str, *, fragment: str | None = None, status: int = 200, **context: Any
) -> Response:
    """Render the page, or only its block `fragment` for htmx, with messages out of band."""
    piece = fragment if is_fragment_request() or (fragment == "alert" and is_boosted()) else None
    if "profile" in g:
        context["person"] = Person(counts=piece is None or bool(context.get("changed")))
    if piece:
        environment = current_app.jinja_env
        current_app.update_template_context(context)
        body = Markup(render_block(environment, template, piece, **context))  # noqa: S704 - rendered by Jinja
        if get_flashed_messages():
            body += environment.globals["ui"].flash.out_of_band()  # type: ignore[attr-defined]
    else:
        current_app.update_template_context(context)
        body = Markup(current_app.jinja_env.get_template(template).render(context))  # noqa: S704 - rendered by Jinja
    response = make_response(body, status)
    response.vary.add("HX-Request")
    return response


def address_of(endpoint: str, **values: Any) -> str:
    """Return the cached result of `url_for`, which templates call hundreds of times per page."""
    return _address_of(request.root_path, endpoint, **values)


@lru_cache(maxsize=4096, typed=True)
def _address_of(_root: str, endpoint: str, **values: Any) -> str:
    return url_for(endpoint, **values)


def see_other(url: str) -> Response:
    """Redirect to `url` after a POST.

    htmx gets an `HX-Redirect`, since it would follow a 303 and swap the page into the form. A
    boosted form gets a 303 if `url` is the current page: htmx then updates the page in place and
    keeps unsaved input in other forms.
    """
    if request.headers.get("HX-Request") == "true" and not (is_boosted() and _is_on(url)):
        return Response(status=204, headers={"HX-Redirect": url})
    return make_response(redirect(url, code=303))


def _is_on(url: str) -> bool:
    """Return whether `url` is the current page of the htmx request."""
    here = urlsplit(request.headers.get("HX-Current-URL", ""))
    there = urlsplit(url)
    return here.path == there.path and there.query in ("", here.query) and not there.fragment


def onward(address: str, title: str, message: str) -> Response:
    """Show a page that links to another site, since `form-action 'self'` blocks a redirect."""
    if request.headers.get("HX-Request") == "true":
        return Response(status=204, headers={"HX-Redirect": address})
    return page(
        "oauth/onward.html",
        address=address,
        host=urlsplit(address).netloc,
        title=title,
        message=message,
    )


class Unindented(Extension):
    """Templates without the indentation of their lines, which browsers ignore and people download.

    One space stays of it, because after a block it may be the only space between two words. White
    space in values stays. No template has text of several lines in `<pre>` or `<textarea>`.
    """

    _INDENTATION = re.compile(r"^[ \t]+", re.MULTILINE)

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Return the source of a template with lines that begin with one space at most."""
        return self._INDENTATION.sub(" ", source)


def init_app(app: Flask, *, https: bool) -> None:
    """Register the globals and filters of templates, and the headers of responses."""
    addresses = assets.init_app(app)
    symbols = re.findall(
        r'<symbol id="([a-z]+)"', Path(str(app.static_folder), "icons.svg").read_text("utf-8")
    )
    environment = app.jinja_env
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.add_extension(Unindented)
    components = Components(environment, Icons(addresses, symbols))
    environment.globals.update(
        ui=components,
        drawn=Drawn(components),
        asset=addresses.__getitem__,
        htmx_config=HTMX_CONFIG,
        url_for=address_of,
    )
    environment.filters.update(ago=ago, when=when, plural=plural, as_json=as_json)
    environment.filters.update(marked=marked, tool_warnings=tool_warnings)

    @app.context_processor
    def _of_this_request() -> dict[str, Any]:
        return {"person": None, "nav": "", "request_id": g.get("request_id")}

    @app.after_request
    def _headers(response: Response) -> Response:
        return _secured(response, https=https)


def ago(time: datetime | None) -> str:
    """Return the time since a past time, such as `3 h ago`."""
    if time is None:
        return "never"
    seconds = max(0, int((datetime.now(UTC) - time).total_seconds()))
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return "just now" if seconds < 10 else f"{seconds} s ago"


def when(time: datetime | None) -> str:
    """Return a date and time in UTC."""
    return time.astimezone(UTC).strftime("%-d %b %Y, %H:%M UTC") if time else "never"


def as_json(value: object) -> str:
    """Return a value as JSON text, which the template escapes."""
    return json.dumps(value, ensure_ascii=False)


def tool_warnings(wire: Mapping[str, Any]) -> tuple[Warning, ...]:
    """Return the warnings about a tool definition of a server."""
    return warnings_of(definition_of(wire))


def plural(number: int, unit: str) -> str:
    """Return a number with its unit: `1 server`, `3 servers`."""
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src"
    " 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def policy(*, form_action: str) -> str:
    """Return the content security policy of a page whose form redirects to `form_action`."""
    return _POLICY.replace("form-action 'self'", f"form-action 'self' {form_action}")


def _secured(response: Response, *, https: bool) -> Response:
    if (
        response.mimetype == "text/html"
        and not response.direct_passthrough
        and not response.is_streamed
    ):
        data = response.get_data()
        marked_data = mark_page(data)
        if marked_data is not data:
            response.set_data(marked_data)
    headers = response.headers
    headers.setdefault("Content-Security-Policy", _POLICY)
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Referrer-Policy", "same-origin")
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
    if https:
        headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
    headers.setdefault("Cache-Control", "no-store")
    if request.endpoint != "static":
        response.vary.add("Cookie")
    return response
