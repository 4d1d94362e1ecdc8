"""Find boxes in forms: what is chosen, and up to a screenful of what matches."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flask import Response, g, request, url_for

from portal.services import choices
from portal.services.choices import Choice
from portal.services.inner.grants import ObjectPermission
from portal.web.rendering import page

Found = Callable[[str], list[Choice]]


@dataclass(frozen=True)
class Options:
    """What a picker shows. `full` says that there may be more than was listed; `url` answers a new search."""

    name: str
    find_name: str
    find: str
    several: bool
    chosen: tuple[Choice, ...]
    matches: tuple[Choice, ...]
    full: bool
    url: str


def server_options(ticked: Collection[str]) -> Options:
    """Servers: those that are ticked, and those that match what is typed into the find box."""
    named = choices.name_servers(g.session, g.principal, ticked)
    found = choices.find_servers(g.session, g.principal, _typed("find"))
    url = url_for("keys.find_servers")
    return _options("servers", "find", url, ticked, named, found, choices.MOST_SERVERS, several=True)


def person_options(chosen: str | None, *, without: Collection[str] = ()) -> Options:
    """People, one of whom is chosen."""
    ticked = [chosen] if chosen else []
    named = choices.name_people(g.session, g.principal, ticked)
    found = choices.find_people(g.session, g.principal, _typed("find_person"))
    rest = [choice for choice in found if choice.value not in without]
    url = url_for("people.find_people")
    return _options("user_id", "find_person", url, ticked, named, rest, choices.MOST_OTHERS - len(without & {c.value for c in found}))


def team_options(chosen: str | None) -> Options:
    """Teams, one of which is chosen."""
    ticked = [chosen] if chosen else []
    named = choices.name_teams(g.session, g.principal, ticked)
    found = choices.find_teams(g.session, g.principal, _typed("find_team"))
    return _options("team_id", "find_team", url_for("people.find_teams"), ticked, named, found, choices.MOST_OTHERS)
