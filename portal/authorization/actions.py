"""What may be done, and what a decision needs to know of a server."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from portal.domain.principals import Principal
from portal.store.models import Server


class Action(StrEnum):
    """Everything that can be asked for, as `<resource>:<action>`."""

    ACCESS_GROUP_MANAGE = "access_group:manage"  # create, change and delete access groups
    ACCESS_GROUP_READ = "access_group:read"  # see access groups with their servers
    AUDIT_READ = "audit:read"  # read the record of changes
    AUDIT_VERIFY = "audit:verify"  # check that the record of changes is whole
    CATALOG_READ = "catalog:read"  # see the lists of well-known servers and services to pick from
    COMMAND_MANAGE = (
        "command:manage"  # add, change and try out servers that are commands on the portal's host
    )
    CREDENTIAL_FORGET = (
        "credential:forget"  # remove what one stored oneself, also where one lost access since
    )
    CREDENTIAL_OWN = "credential:own"  # store and remove one's own key for a server
    CREDENTIAL_REMOVE_OTHERS = "credential:remove_others"  # remove somebody else's values
    KEY_MANAGE = "key:manage"  # issue, change and revoke anybody's API keys
    KEY_OWN = "key:own"  # issue and revoke one's own API keys
    KEY_OWN_READ = "key:own_read"  # see one's own API keys
    KEY_READ = "key:read"  # see all API keys, never their secrets
    PREFERENCE_MANAGE = "preference:manage"  # change instance settings
    PREFERENCE_READ = "preference:read"  # see instance settings
    SECRET_CARRY = "secret:carry"  # noqa: S105 - let stored secrets go along to another host
    SERVER_ACCEPT = (
        "server:accept"  # compare the tool definitions of a server, and accept changed ones
    )
    SERVER_CREATE = "server:create"  # add a server, or try out a definition
    SERVER_DELETE = "server:delete"  # remove a server with all that hangs on it
    SERVER_INSPECT = "server:inspect"  # see configuration, access and health of servers
    SERVER_PROBE = "server:probe"  # check a server's health now
    SERVER_READ = "server:read"  # see that a server exists, and its public facts
    # refresh tokens of, and register a client at, a server's sign-in by the portal
    SERVER_RENEW = "server:renew"
    SERVER_REVEAL = "server:reveal"  # read url, header, env and global values verbatim
    SERVER_SIGN_IN = "server:sign_in"  # sign in to a server by way of the portal, as MCP clients do
    SERVER_UPDATE = "server:update"  # change a server
    SERVER_USE = "server:use"  # list and call a server's tools
    SUBMISSION_DECIDE = "submission:decide"  # approve and reject what Members propose
    SUBMISSION_MAKE = "submission:make"  # propose a server for review
    SUBMISSION_READ = "submission:read"  # see the review queue
    TEAM_MANAGE = "team:manage"  # create, change and delete teams
    TEAM_READ = "team:read"  # see all teams
    TOOLSET_MANAGE = "toolset:manage"  # create, change and delete toolsets
    TOOLSET_READ = "toolset:read"  # see every toolset, granted or not
    USER_MANAGE = "user:manage"  # create, change and deactivate people
    USER_READ = "user:read"  # see all people
    VALUES_OWN = "values:own"  # store and remove one's own values of a server's variables
    VAULT_MANAGE = "vault:manage"  # count what is stored by key, and re-encrypt it


@dataclass(frozen=True)
class ServerFacts:
    """What a decision needs to know of a server: its row and the access groups it is in."""

    row: Server
    access_group_ids: frozenset[str]


Predicate = Callable[[Principal, ServerFacts | None], bool]
