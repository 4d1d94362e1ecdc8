"""The caller of a request: role, and the access that grants give."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Role(StrEnum):
    """A user's role, with the values of the wire format."""

    ADMIN = "proxy_admin"
    ADMIN_VIEWER = "proxy_admin_viewer"
    MEMBER = "internal_user"
    VIEWER = "internal_user_viewer"

    @property
    def label(self) -> str:
        """Return the role for display."""
        return {
            "proxy_admin": "Admin",
            "proxy_admin_viewer": "Read-only admin",
            "internal_user": "Member",
        }.get(self.value, "Viewer")

    @property
    def has_admin_view(self) -> bool:
        """Return whether the role is Admin or Read-only admin."""
        return self in (Role.ADMIN, Role.ADMIN_VIEWER)


class TeamRole(StrEnum):
    """A user's role in a team."""

    ADMIN = "admin"
    USER = "user"


@dataclass(frozen=True)
class Reach:
    """The servers and tools that one level (a key, a team or a user) names.

    `names_anything` stays true after everything named was deleted, so that deleting a server never
    turns a limit into "no limit". A toolset counts as tool permissions on its servers, which are
    already in `server_ids` and `tools`. `holder` identifies the level (`team` and its ID) for
    explanations.
    """

    server_ids: frozenset[str] = frozenset()
    access_group_ids: frozenset[str] = frozenset()
    tools: Mapping[str, frozenset[str]] = field(
        default_factory=lambda: MappingProxyType({}), hash=False
    )
    names_anything: bool = False
    explicit_servers: frozenset[str] | None = None
    toolset_ids: frozenset[str] = frozenset()
    explicit_toolsets: frozenset[str] | None = None
    holder: tuple[str, str] | None = None

    def covers(self, server_id: str, access_group_ids: frozenset[str]) -> bool:
        """Return whether this level names the server, directly or through an access group."""
        return server_id in self.server_ids or not self.access_group_ids.isdisjoint(
            access_group_ids
        )


@dataclass(frozen=True)
class Principal:
    """A user or a key, with its grants loaded.

    `routes_of_access` is a union of intersections: a server is granted if, in one of the tuples,
    every level covers it. `only_servers` and `only_toolsets` are named by the key itself and also
    limit Admins. `is_internal` is true if the caller's address is in the internal ranges.
    `few_servers` contains all servers that grants could give or that are open to everyone, if these
    are few. It grants nothing, but lists query no other servers. `owner` is set for a key that is
    limited to the access of its owner. `is_personal` is set for a key with exactly its owner's
    access and credentials. `key_issued_by` is the user who issued the key, if not its owner.
    `app_id` is the client ID of the app, if the user's request comes with an app's access token.
    """

    name: str
    role: Role
    user_id: str | None = None
    key_id: str | None = None
    team_id: str | None = None
    team_ids: frozenset[str] = frozenset()
    routes_of_access: tuple[tuple[Reach, ...], ...] = ()
    only_servers: frozenset[str] | None = None
    only_toolsets: frozenset[str] | None = None
    allowed_routes: tuple[str, ...] = ()
    is_internal: bool = False
    few_servers: frozenset[str] | None = None
    view_all: bool = False
    is_operator: bool = False
    address: str | None = None
    owner: "Principal | None" = None
    is_personal: bool = False
    key_issued_by: str | None = None
    app_id: str | None = None

    @property
    def signature(self) -> str:
        """Return the user ID, or the name of a key without owner, for `created_by`."""
        return self.user_id or self.name

    @property
    def is_restricted_key(self) -> bool:
        """Return whether this is a key with a non-empty `allowed_routes`."""
        return self.key_id is not None and bool(self.allowed_routes)


STRANGER = Principal(name="somebody", role=Role.VIEWER)
"""The anonymous caller, such as of a failed sign-in."""

OPERATOR = Principal(name="operator", role=Role.ADMIN, is_internal=True, is_operator=True)
"""The caller of commands on this host. Shell access implies access to the database."""
