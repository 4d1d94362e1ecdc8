"""The actions, and what a decision needs to know of a server."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from portal.domain.principals import Principal
from portal.store.models import Server


class Action(StrEnum):
    """All actions, as `<resource>:<action>`."""

    ACCESS_GROUP_MANAGE = "access_group:manage"  # create, change and delete access groups
    ACCESS_GROUP_READ = "access_group:read"  # see access groups with their servers
    AUDIT_READ = "audit:read"  # read the audit log
    AUDIT_VERIFY = "audit:verify"  # verify the audit log
    CATALOG_READ = "catalog:read"  # see the lists of well-known servers and services
    COMMAND_MANAGE = "command:manage"  # add, change and test servers that run a command
    CREDENTIAL_FORGET = "credential:forget"  # remove one's stored data, even after losing access
    CREDENTIAL_OWN = "credential:own"  # store and remove the user's own key for a server
    CREDENTIAL_REMOVE_OTHERS = "credential:remove_others"  # remove another user's values
    KEY_MANAGE = "key:manage"  # create, change and revoke any user's API keys
    KEY_OWN = "key:own"  # create and revoke the user's own API keys
    KEY_OWN_READ = "key:own_read"  # see the user's own API keys
    KEY_READ = "key:read"  # see all API keys, never their secrets
    PREFERENCE_MANAGE = "preference:manage"  # change instance settings
    PREFERENCE_READ = "preference:read"  # see instance settings
    SECRET_CARRY = "secret:carry"  # noqa: S105 - send stored secrets to another host
    SERVER_ACCEPT = "server:accept"  # compare a server's tool definitions, and accept changes
    SERVER_CREATE = "server:create"  # add a server, or test a definition
    SERVER_DELETE = "server:delete"  # delete a server with all its data
    SERVER_INSPECT = "server:inspect"  # see configuration, access and health of servers
    SERVER_PROBE = "server:probe"  # check a server's health now
    SERVER_READ = "server:read"  # see that a server exists, and its public facts
    SERVER_RENEW = "server:renew"  # refresh tokens and register clients at the portal for a server
    SERVER_REVEAL = "server:reveal"  # read url, header, env and global values verbatim
    SERVER_SIGN_IN = "server:sign_in"  # sign in to a server through the portal, as MCP clients do
    SERVER_UPDATE = "server:update"  # change a server
    SERVER_USE = "server:use"  # list and call a server's tools
    SUBMISSION_DECIDE = "submission:decide"  # approve and reject submissions
    SUBMISSION_MAKE = "submission:make"  # submit a server for review
    SUBMISSION_READ = "submission:read"  # see the review queue
    TEAM_MANAGE = "team:manage"  # create, change and delete teams
    TEAM_READ = "team:read"  # see all teams
    TOOLSET_MANAGE = "toolset:manage"  # create, change and delete toolsets
    TOOLSET_READ = "toolset:read"  # see every toolset, granted or not
    USER_MANAGE = "user:manage"  # create, change and deactivate users
    USER_READ = "user:read"  # see all users
    VALUES_OWN = "values:own"  # store and remove the user's own values of a server's variables
    VAULT_MANAGE = "vault:manage"  # count stored secrets by key, and re-encrypt them


@dataclass(frozen=True)
class ServerFacts:
    """The facts of a server for decisions: its row and its access groups."""

    row: Server
    access_group_ids: frozenset[str]


Predicate = Callable[[Principal, ServerFacts | None], bool]
