"""The data of `portal demo`: a catalog, teams, a user of each role, and a real local MCP server."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy.orm import Session

from portal.domain.errors import Conflict, NotFound
from portal.domain.principals import OPERATOR, Role, TeamRole
from portal.domain.servers import AuthType, OAuthGrantType, ServerFields, Transport
from portal.resources import folder
from portal.services.access import access_groups, teams, users
from portal.services.servers import crud
from portal.services.servers.grants import ObjectPermission
from portal.store.database import Database

_SCRIPT = folder("examples") / "echo_server.py"
_USUAL_PORT = 8931
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_DOMAIN = "@demo.example"

Announce = Callable[[str], None]


@dataclass(frozen=True)
class _Person:
    name: str
    role: Role
    team: str | None = None

    @property
    def email(self) -> str:
        return self.name.lower() + _DOMAIN


_PEOPLE = (
    _Person("Ada", Role.ADMIN),
    _Person("Vera", Role.ADMIN_VIEWER),
    _Person("Mel", Role.MEMBER, "Platform"),
    _Person("Otto", Role.VIEWER, "Finance"),
)
_GROUPS = {
    "engineering": "Tools for engineers",
    "everyday": "Tools for everyone",
    "finance": "Books, invoices and the warehouse",
}
_TEAMS = {
    "Platform": ObjectPermission(
        mcp_servers=("echo", "echo_personal"), mcp_access_groups=("engineering", "everyday")
    ),
    "Finance": ObjectPermission(mcp_access_groups=("everyday", "finance")),
}


@contextmanager
def running_server() -> Iterator[str]:
    """Run the sample MCP server within the context; yield its URL once it accepts connections.

    Raises `SystemExit` with one line if it does not start. A SIGTERM before the web server installs
    its signal handlers also ends the context, so that the child process never survives.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    port = _free_port()
    # The child process gets none of the portal's settings, because they contain the keys.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PORTAL_")
    }
    child = subprocess.Popen(  # noqa: S603 - the portal's own script and Python
        [sys.executable, str(_SCRIPT), "--port", str(port)],
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    try:
        _wait_for(child, port)
        yield _url(port)
    finally:
        child.terminate()
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        signal.signal(signal.SIGTERM, before)


def fill(database: Database, url: str, *, announce: Announce) -> None:
    """Add the samples at the first start; later, only update the sample server's `url`.

    Samples that were changed or deleted since stay that way.
    """
    password = secrets.token_urlsafe(9)
    with database.session(writes=True) as session:
        is_first = not users.list_users(session, OPERATOR, q=_DOMAIN, limit=1).items
        if is_first:
            _add_catalog(session, url)
            _add_people(session, password)
        else:
            for name, fields in _catalog(url).items():
                if fields.get("url") == url:
                    _lead_to(session, name, url)
        session.commit()
    announce(f"  Sample MCP server   {url}")
    shown = (
        password
        if is_first
        else "as shown at the first start; to change it, run: portal users password EMAIL"
    )
    announce(f"  Sample users        password {shown}")
    for person in _PEOPLE:
        team = f" of {person.team}" if person.team else ""
        announce(f"    {person.email:<20}{person.role.label}{team}")
    announce("")


def _add_catalog(session: Session, url: str) -> None:
    for name, description in _GROUPS.items():
        with suppress(Conflict):
            access_groups.create_group(session, OPERATOR, name, description, ())
    for name, fields in _catalog(url).items():
        with suppress(Conflict):
            crud.create_server(session, OPERATOR, {**fields, "server_name": name, "alias": name})


def _add_people(session: Session, password: str) -> None:
    ids: dict[str, list[tuple[str, str]]] = {name: [] for name in _TEAMS}
    for person in _PEOPLE:
        user = users.create_user(
            session,
            OPERATOR,
            {
                "email": person.email,
                "display_name": person.name,
                "role": person.role.value,
                "password": password,
                "must_change_password": False,
            },
        )
        if person.team:
            ids[person.team].append((user.user_id, TeamRole.USER.value))
    for team, permission in _TEAMS.items():
        with suppress(Conflict):
            teams.create_team(
                session, OPERATOR, {"team_alias": team}, permission, members=ids[team]
            )


def _lead_to(session: Session, name: str, url: str) -> None:
    """Update a sample's URL; stored values are kept, because the server is on this machine."""
    try:
        server = crud.get_server(session, OPERATOR, name)
    except NotFound:
        return
    if server.url != url:
        crud.update_server(
            session, OPERATOR, server.server_id, {"url": url, "keep_credentials": True}
        )


def _catalog(url: str) -> dict[str, ServerFields]:
    """Return the sample servers by name: half of them work at `url`, the others show problems."""
    return {**_to_try(url), **_for_engineers(url), **_for_everybody(url), **_for_finance(url)}


def _to_try(url: str) -> dict[str, ServerFields]:
    return {
        "echo": {
            "description": "Returns the headers it receives. Needs a value of your own.",
            "transport": Transport.HTTP,
            "url": url,
            "static_headers": {"X-Corp-Token": "${CORP_TOKEN}", "X-Region": "${REGION}"},
            "env_vars": [
                {
                    "name": "CORP_TOKEN", "scope": "user",
                    "description": "Your personal token. For this sample, any value works.",
                },
                {"name": "REGION", "scope": "global", "value": "eu-1"},
            ],
        },
        "echo_personal": {
            "description": "The same server, used with your own key.",
            "transport": Transport.HTTP,
            "url": url,
            "auth_type": AuthType.BEARER_TOKEN,
            "is_byok": True,
            "byok_description": ["See which headers are sent with your key", "Try the tools"],
            "byok_api_key_help_url": "https://keys.echo.example/",
        },
        "notes": {
            "description": "A few sample notes to search. Open to everyone.",
            "transport": Transport.HTTP,
            "url": url,
            "allowed_tools": ["search_notes"],
            "allow_all_keys": True,
        },
    }  # fmt: skip


def _for_engineers(url: str) -> dict[str, ServerFields]:
    return {
        "code_review": {
            "description": "Pull requests, comments and checks. Each user signs in.",
            "transport": Transport.HTTP,
            "url": "https://review.example/mcp",
            "auth_type": AuthType.OAUTH2,
            "oauth2_flow": OAuthGrantType.AUTHORIZATION_CODE,
            "mcp_access_groups": ["engineering"],
        },
        "build_logs": {
            "description": "Logs of the build farm, over the deprecated SSE transport.",
            "transport": Transport.SSE,
            "url": "https://builds.example/sse",
            "mcp_access_groups": ["engineering"],
        },
        "metrics": {
            "description": "Dashboards and alerts of production.",
            "transport": Transport.HTTP,
            "url": url,
            "auth_type": AuthType.API_KEY,
            "credentials": {"auth_value": "a-sample-key"},
            "mcp_access_groups": ["engineering"],
        },
        "staging_database": {
            "description": (
                "Read-only queries. Nothing listens at its address, so it shows as unhealthy."
            ),
            "transport": Transport.HTTP,
            "url": "http://127.0.0.1:9/mcp",
            "available_on_public_internet": False,
            "mcp_access_groups": ["engineering"],
        },
    }


def _for_everybody(url: str) -> dict[str, ServerFields]:
    return {
        "calendar": {
            "description": "Meetings, rooms and who is free when.",
            "transport": Transport.HTTP,
            "url": "https://calendar.example/mcp",
            "auth_type": AuthType.OAUTH2,
            "oauth2_flow": OAuthGrantType.AUTHORIZATION_CODE,
            "mcp_access_groups": ["everyday"],
        },
        "tickets": {
            "description": ("Requests to the help desk. Needs your own token and account."),
            "transport": Transport.HTTP,
            "url": "https://tickets.example/mcp",
            "static_headers": {
                "Authorization": "Bearer ${TICKETS_TOKEN}",
                "X-Account": "${TICKETS_ACCOUNT}",
            },
            "env_vars": [
                {
                    "name": "TICKETS_TOKEN",
                    "scope": "user",
                    "description": "From Profile, API tokens.",
                },
                {
                    "name": "TICKETS_ACCOUNT",
                    "scope": "user",
                    "description": "The number on your profile page.",
                },
            ],
            "mcp_access_groups": ["everyday"],
        },
        "wiki": {
            "description": "Search and read the pages of the company wiki.",
            "transport": Transport.HTTP,
            "url": url,
            "mcp_access_groups": ["engineering", "everyday", "finance"],
        },
    }


def _for_finance(url: str) -> dict[str, ServerFields]:
    return {
        "invoices": {
            "description": "Incoming and outgoing invoices.",
            "transport": Transport.HTTP,
            "url": "https://invoices.example/mcp",
            "auth_type": AuthType.BASIC,
            "credentials": {"auth_value": "sample:sample"},
            "mcp_access_groups": ["finance"],
        },
        "warehouse": {
            "description": "What is in stock, and where.",
            "transport": Transport.HTTP,
            "url": url,
            "auth_type": AuthType.TOKEN,
            "credentials": {"auth_value": "a-sample-token"},
            "mcp_access_groups": ["finance"],
        },
    }


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/mcp"


def _free_port() -> int:
    """Return the usual port, so that bookmarks and stored URLs stay valid, or any free one."""
    for port in (_USUAL_PORT, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise SystemExit("No free port for the sample MCP server.")


def _wait_for(child: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        with suppress(subprocess.TimeoutExpired):
            raise SystemExit(
                f"The sample MCP server exited with {child.wait(0.05)} instead of starting."
            )
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
    raise SystemExit(f"The sample MCP server did not start within {_START_SECONDS:g} seconds.")
