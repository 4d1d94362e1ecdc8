"""Find boxes in forms: what is chosen, and up to a screenful of what matches."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from flask import Blueprint, Response, g, request, url_for

from portal.services.access import pickers
from portal.services.access.pickers import Choice
from portal.services.servers.grants import ObjectPermission
from portal.web.context import only_with_admin_view, reads_only
from portal.web.rendering import page

bp = Blueprint("pickers", __name__, url_prefix="/admin/find")
_HIDDEN = "A server that is not shown to you from here"


bp.before_request(only_with_admin_view)


@dataclass(frozen=True)
class Options:
    """What a picker shows. `full`: more may match than was listed. `url` answers when one types
    into the box."""

    name: str
    find_name: str
    find: str
    several: bool
    url: str
    chosen: tuple[Choice, ...]
    matches: tuple[Choice, ...]
    full: bool


def server_options(ticked: Collection[str]) -> Options:
    """Servers: those that are ticked, and those that match what is typed into the find box."""
    named = pickers.name_servers(g.session, g.principal, ticked)
    chosen = [
        named.get(server_id) or Choice(server_id, _HIDDEN, server_id[:64]) for server_id in ticked
    ]
    found = pickers.find_servers(g.session, g.principal, _typed("find"))
    url = url_for("keys.find_servers")
    return _options("servers", "find", url, chosen, found, pickers.MOST_SERVERS, several=True)


def person_options(chosen: str | None, *, without: Collection[str] = ()) -> Options:
    """People, one of whom may be chosen; those in `without` are not offered."""
    named = pickers.name_people(g.session, g.principal, [chosen] if chosen else [])
    found = pickers.find_people(g.session, g.principal, _typed("find_person"))
    url = url_for("pickers.find_people")
    offered = _options(
        "user_id", "find_person", url, list(named.values()), found, pickers.MOST_OTHERS
    )
    return replace(
        offered, matches=tuple(choice for choice in offered.matches if choice.value not in without)
    )


def team_options(chosen: str | None) -> Options:
    """Teams, one of which may be chosen."""
    named = pickers.name_teams(g.session, g.principal, [chosen] if chosen else [])
    found = pickers.find_teams(g.session, g.principal, _typed("find_team"))
    url = url_for("pickers.find_teams")
    return _options("team_id", "find_team", url, list(named.values()), found, pickers.MOST_OTHERS)


def key_options(chosen: str | None) -> Options:
    """API keys, one of which may be chosen."""
    named = pickers.name_keys(g.session, g.principal, [chosen] if chosen else [])
    found = pickers.find_keys(g.session, g.principal, _typed("find_key"))
    url = url_for("pickers.find_keys")
    return _options("key_id", "find_key", url, list(named.values()), found, pickers.MOST_OTHERS)


def one_server_options(chosen: str | None, url: str) -> Options:
    """Servers, one of which may be chosen; `url` answers the find box."""
    named = pickers.name_servers(g.session, g.principal, [chosen] if chosen else [])
    found = pickers.find_servers(g.session, g.principal, _typed("find_server"))
    return _options(
        "server_id", "find_server", url, list(named.values()), found, pickers.MOST_SERVERS
    )


@bp.post("/people")
@reads_only
def find_people() -> Response:
    """People for a find box, as one types."""
    return page(
        "pickers/found.html",
        fragment="found",
        nav="users",
        options=person_options(request.form.get("user_id")),
    )


@bp.post("/teams")
@reads_only
def find_teams() -> Response:
    """Teams for a find box, as one types."""
    return page(
        "pickers/found.html",
        fragment="found",
        nav="teams",
        options=team_options(request.form.get("team_id")),
    )


@bp.post("/keys")
@reads_only
def find_keys() -> Response:
    """API keys for a find box, as one types."""
    return page(
        "pickers/found.html",
        fragment="found",
        nav="explain",
        options=key_options(request.form.get("key_id")),
    )


@bp.post("/servers")
@reads_only
def find_server() -> Response:
    """Servers for a find box of which one is chosen, as one types."""
    options = one_server_options(request.form.get("server_id"), request.path)
    return page("pickers/found.html", fragment="found", nav="explain", options=options)


def changed_permission(
    stored: ObjectPermission,
    servers: Collection[str],
    toolsets: Collection[str],
    groups: Collection[str] | None = None,
) -> ObjectPermission | None:
    """What to grant, or None where it is what is granted already.

    Tool permissions stay. Rewriting an equal permission would not be harmless: it drops the marks
    that deleted servers left behind, and with them the limit that they still set.
    """
    wanted = replace(
        stored,
        mcp_servers=tuple(sorted(servers)),
        mcp_toolsets=tuple(sorted(toolsets)),
        mcp_access_groups=stored.mcp_access_groups if groups is None else tuple(sorted(groups)),
    )
    return None if wanted == stored else wanted


def toolset_choices() -> list[tuple[str, str]]:
    """All toolsets, for a form that grants them; a few hundred at most."""
    return [(choice.value, choice.text) for choice in pickers.list_toolsets(g.session, g.principal)]


def server_names(permissions: Mapping[str, object]) -> dict[str, str]:
    """The names of the servers that tool permissions are about."""
    named = pickers.name_servers(g.session, g.principal, permissions)
    return {
        server_id: named[server_id].text if server_id in named else server_id
        for server_id in permissions
    }


def _typed(name: str) -> str:
    return request.values.get(name, "")[:200]


def _options(
    name: str,
    find_name: str,
    url: str,
    chosen: Sequence[Choice],
    found: Sequence[Choice],
    most: int,
    *,
    several: bool = False,
) -> Options:
    ticked = {choice.value for choice in chosen}
    return Options(
        name=name,
        find_name=find_name,
        find=_typed(find_name),
        several=several,
        url=url,
        chosen=tuple(sorted(chosen, key=lambda choice: choice.text.casefold())),
        matches=tuple(choice for choice in found if choice.value not in ticked),
        full=len(found) >= most,
    )
