"""Who is asking, as plain data: roles, and the reach that grants give."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Role(StrEnum):
    """A person's role, in the words of the wire format."""

    ADMIN = "proxy_admin"
    ADMIN_VIEWER = "proxy_admin_viewer"
    MEMBER = "internal_user"
    VIEWER = "internal_user_viewer"

    @property
    def label(self) -> str:
        """The role as people read it."""
        return {
            "proxy_admin": "Admin",
            "proxy_admin_viewer": "Read-only admin",
            "internal_user": "Member",
        }.get(self.value, "Viewer")

    @property
    def has_admin_view(self) -> bool:
        """Admin and Read-only admin."""
        return self in (Role.ADMIN, Role.ADMIN_VIEWER)


class TeamRole(StrEnum):
    """What a person is in a team."""

    ADMIN = "admin"
    USER = "user"


@dataclass(frozen=True)
class Reach:
    """What one level (a key, a team, a person) names.

    `names_anything` stays true when all that was named is gone: a level that once set a limit never
    turns into "no limit" because a server was deleted. A toolset counts as tool permissions on the
    servers it is made of; those are in `server_ids` and `tools` already. `holder` is whose level it
    is (`team` and its id), for those who explain.
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
        """Whether this level names the server, itself or through an access group."""
        return server_id in self.server_ids or not self.access_group_ids.isdisjoint(
            access_group_ids
        )


@dataclass(frozen=True)
class Principal:
    """A person or a key, with its grants already loaded.

    `routes_of_access` is a union of intersections: a server is granted when, in one of the tuples,
    every level covers it. `only_servers` and `only_toolsets` are what a key names itself, which
    narrows Admins too. `is_internal` says whether the caller's address lies in the internal ranges.
    `few_servers` holds every server that grants could reach or that is open to all, where these are
    few; it grants nothing, and lists look at no other. `owner` is the person whose key asks, where
    the key reaches only what they reach too: what they do not, it does not either. `is_personal` is
    a key that reaches just what its owner reaches, and has what they have. `key_issued_by` is the
    person who issued the key that asks, where that is not its owner. `app_id` is the client id of
    the app through which a person asks, where that shows a token that they let it have.
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
        """What stands in `created_by` and `updated_by`: the user's id, or the name of a key that
        belongs to nobody."""
        return self.user_id or self.name

    @property
    def is_restricted_key(self) -> bool:
        """A key whose `allowed_routes` is a non-empty list."""
        return self.key_id is not None and bool(self.allowed_routes)


STRANGER = Principal(name="somebody", role=Role.VIEWER)
"""Who acts when nobody is known: a sign-in that failed."""

OPERATOR = Principal(name="operator", role=Role.ADMIN, is_internal=True, is_operator=True)
"""Who acts when a command of this host does something: whoever has a shell here has the database
anyway."""
