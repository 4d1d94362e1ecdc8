"""Pages and pieces of pages: one function for both, and what every template may use."""

import hashlib
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
    """`ui.icons.icon(…)`: a symbol of the sprite. Python and not a macro, since a page has hundreds
    of them."""

    def __init__(self, addresses: Mapping[str, str], symbols: Collection[str]) -> None:
        self._sprite, self._files, self._symbols = addresses["icons.svg"], addresses, symbols
        self.icon = lru_cache(maxsize=512)(self._icon)

    def symbol_of(self, logo_url: str | None) -> str:
        """The symbol that a `logo_url` like `/static/icons.svg#cloud` names; blank where it names
        none of ours."""
        address, _, name = (logo_url or "").partition("#")
        return name if address == "/static/icons.svg" and name in self._symbols else ""

    def is_there(self, logo_url: str) -> bool:
        """Whether a `logo_url` is a picture among our own files, so that no card shows a broken one
        (UI-16)."""
        return (
            logo_url.removeprefix("/static/").endswith(_PICTURES)
            and logo_url.removeprefix("/static/") in self._files
        )

    def _icon(self, name: str, label: str = "") -> Markup:
        """The symbol `name`; without a label it is decoration."""
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
        setattr(self, name, module)  # from now on found without asking here
        return module


class Drawn:
    """`drawn.card(server)`, `drawn.side(…)`: pieces of pages as they were drawn before.

    What is drawn follows from what is given, and from nothing else: no person, no token and no
    clock. So it is kept by that, and is never out of date. A piece says different things to
    different viewers where they are given different things, and is another piece then.
    """

    def __init__(self, components: Components) -> None:
        @lru_cache(maxsize=1024)
        def draw(_root: str, file: str, macro: str, *given: object) -> Markup:
            return Markup(getattr(getattr(components, file), macro)(*given))  # noqa: S704 - rendered by Jinja

        self._draw = draw

    def card(self, server: ServerCard) -> Markup:
        """The card of a server."""
        return self._draw(
            request.root_path, "servers", "card", server, ago(server.health.checked_at)
        )

    def row(self, server: ServerCard) -> Markup:
        """Its row in the table."""
        return self._draw(
            request.root_path, "servers", "row", server, ago(server.health.checked_at)
        )

    def filter(self, query: GridQuery, choices: GridChoices) -> Markup:
        """The filter bar of the grid."""
        return self._draw(request.root_path, "grid", "filter", query, choices)

    def side(self, actions: frozenset[Action], nav: str, needs: int, reviews: int) -> Markup:
        """The navigation, with what waits for the person and for a review."""
        return self._draw(request.root_path, "nav", "side", actions, nav, needs, reviews)

    def shortcuts(self, actions: frozenset[Action]) -> Markup:
        """The dialog that explains the keys."""
        return self._draw(request.root_path, "nav", "shortcuts", actions)


class Person:
    """The signed-in person, as the frame around every page shows them.

    With `counts`: how many servers need something of them, and, for those who may look at
    submissions, how many of these wait for a review. A fragment without the frame does not need it.
    """

    def __init__(self, *, counts: bool = False) -> None:
        profile = g.profile
        self.user_id, self.email, self.display_name = (
            profile.user_id,
            profile.email,
            profile.display_name,
        )
        self.role_label, self.theme = profile.role_label, profile.theme
        self.dormant_because = profile.dormant_because
        self.admin_view = authz.has_admin_view(g.principal)
        self.actions = authz.allowed_actions(g.principal)
        self.read_only = self.admin_view and Action.SERVER_CREATE not in self.actions
        self.needs_count = grid.needs_count(g.session, g.principal) if counts else 0
        reviews = counts and Action.SUBMISSION_READ in self.actions
        self.review_count = review_queue.waiting_count(g.session, g.principal) if reviews else 0


def is_fragment_request() -> bool:
    """Whether htmx asks for a piece, and not the browser (or htmx on its behalf) for the page."""
    headers = request.headers
    return (
        headers.get("HX-Request") == "true"
        and headers.get("HX-Boosted") != "true"
        and headers.get("HX-History-Restore-Request") != "true"
    )


def is_boosted() -> bool:
    """Whether htmx sent a form in the browser's place (static/keep.js), and puts a whole page in
    place of this one."""
    return request.headers.get("HX-Boosted") == "true"


def page(
    template: str, *, fragment: str | None = None, status: int = 200, **context: Any
) -> Response:
    """The whole page, or its block `fragment` where htmx asks for a piece; messages ride along out
    of band."""
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
    """`url_for` for templates, which ask it hundreds of times a page for addresses below this
    application's root."""
    return _address_of(request.root_path, endpoint, **values)


@lru_cache(maxsize=4096, typed=True)
def _address_of(_root: str, endpoint: str, **values: Any) -> str:
    return url_for(endpoint, **values)


def see_other(url: str) -> Response:
    """Go on at `url` after a POST. htmx is told to navigate: it would follow a 303 and swap the
    page into the form.

    Where `url` is the page that the person is on, a boosted form gets the 303: the page is then
    changed in place, so that what was typed elsewhere on it meanwhile stays.
    """
    if request.headers.get("HX-Request") == "true" and not (is_boosted() and _is_on(url)):
        return Response(status=204, headers={"HX-Redirect": url})
    return make_response(redirect(url, code=303))


def _is_on(url: str) -> bool:
    """Whether htmx says that the person is on the page `url`."""
    here = urlsplit(request.headers.get("HX-Current-URL", ""))
    there = urlsplit(url)
    return here.path == there.path and there.query in ("", here.query) and not there.fragment


def onward(address: str, title: str, message: str) -> Response:
    """A page that leads to another site after a form: `form-action 'self'` stops a redirect
    there."""
    if request.headers.get("HX-Request") == "true":
        return Response(status=204, headers={"HX-Redirect": address})
    return page(
        "oauth/onward.html",
        address=address,
        host=urlsplit(address).netloc,
        title=title,
        message=message,
    )


def init_app(app: Flask, *, https: bool) -> None:
    """Give templates their globals and filters, and every answer its headers."""
    addresses = _static_addresses(Path(str(app.static_folder)))
    symbols = re.findall(
        r'<symbol id="([a-z]+)"', Path(str(app.static_folder), "icons.svg").read_text("utf-8")
    )
    environment = app.jinja_env
    environment.trim_blocks = environment.lstrip_blocks = True
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
    """A past time as people say it."""
    if time is None:
        return "never"
    seconds = max(0, int((datetime.now(UTC) - time).total_seconds()))
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return "just now" if seconds < 10 else f"{seconds} s ago"


def when(time: datetime | None) -> str:
    """A time in full, in UTC."""
    return time.astimezone(UTC).strftime("%-d %b %Y, %H:%M UTC") if time else "never"


def as_json(value: object) -> str:
    """A list or an object as people read it: JSON, to be escaped like any text."""
    return json.dumps(value, ensure_ascii=False)


def tool_warnings(wire: Mapping[str, Any]) -> tuple[Warning, ...]:
    """What is to be pointed out in a tool as its server described it."""
    return warnings_of(definition_of(wire))


def plural(number: int, unit: str) -> str:
    """`1 server`, `3 servers`."""
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


def _static_addresses(folder: Path) -> dict[str, str]:
    """The address of every static file, with a hash of what is in it, so that browsers may keep it
    for good."""
    addresses = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        addresses[name] = f"/static/{name}?v={digest[:12]}"
    return addresses


_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src"
    " 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def policy(*, form_action: str) -> str:
    """The policy of a page whose form may be answered with a redirect to `form_action`."""
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
    if request.endpoint == "static":
        fresh = (
            "public, max-age=31536000, immutable" if "v" in request.args else "public, max-age=300"
        )
        headers["Cache-Control"] = fresh
    else:
        headers.setdefault("Cache-Control", "no-store")
        response.vary.add("Cookie")
    return response
