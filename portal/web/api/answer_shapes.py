"""Response shapes that differ from the services' views."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from portal.services.access.key_reach import KeyReach
from portal.services.access.keys import KeyView
from portal.services.access.me import CallerView
from portal.services.access.teams import MemberView, TeamView
from portal.services.access.users import UserView
from portal.services.catalog.openapi import ApiEntry
from portal.services.credentials.states import KeyState, Requirement
from portal.services.instance_settings import Preferences
from portal.services.servers.queries import RequiredVariable
from portal.services.servers.views import ServerView
from portal.services.submissions.review_queue import Counts
from portal.services.tools.tool_changes import ToolChange, ToolChanges
from portal.web.documented import list_of, shape

Key = shape("Key", KeyView, reach=KeyReach)
IssuedKey = shape("IssuedKey", KeyView, reach=KeyReach, key=str)
TeamMember = shape("TeamMember", MemberView, without=("name",))
Team = shape("Team", TeamView, members_with_roles=list_of(TeamMember))
KeyStateAnswer = shape("KeyState", KeyState, without=("connected_at",))
NeededVariable = shape("NeededVariable", RequiredVariable, without=("updated_at",))
Needs = shape("Needs", Requirement, required=list_of(NeededVariable), missing_count=int)
Caller = shape("Caller", CallerView, user=UserView | None, key=Key | None)
Settings = shape("Settings", Preferences, public_mcp_servers=list[str])
OwnSubmissionAnswer = shape("OwnSubmission", ServerView, change_submitted_at=datetime | None)


class CheckAnswer(BaseModel):
    """One required field of a submission."""

    field: str
    passes: bool


class GoingAnswer(BaseModel):
    """The origin to which a secret of a submission is sent; `from` is the previous origin."""

    secret: str
    to: str
    before: str | None = Field(alias="from")
    is_own_host: bool


class AddressAnswer(BaseModel):
    """The origin of a URL in a submission, which all reviewers may see."""

    field: str
    origin: str
    is_own_host: bool


class MovedAnswer(BaseModel):
    """A stored secret that was moved or deleted; `people` is the number of users with their own."""

    secret: str
    before: str = Field(alias="from")
    to: str
    people: int | None = None


class SettledAnswer(BaseModel):
    """The result for stored secrets.

    `dropped` were deleted with the previous authentication; `disconnected` is a number of users.
    """

    keep_credentials: bool | None = None
    secrets: list[MovedAnswer] | None = None
    people: int | None = None
    dropped: list[str] | None = None
    disconnected: int | None = None


ChangedServer = shape("ChangedServer", ServerView, settled=SettledAnswer)
SubmissionAnswer = shape(
    "Submission",
    ServerView,
    submitted_team_id=str | None,
    wishes=dict[str, Any],
    checks=list[CheckAnswer],
    change_waits=bool,
    destinations=list[GoingAnswer],
    addresses=list[AddressAnswer],
)
SubmissionQueue = shape("SubmissionQueue", Counts, items=list_of(SubmissionAnswer))


class GroupNames(BaseModel):
    """The names of access groups, sorted."""

    access_groups: list[str]


class ClientAddress(BaseModel):
    """The caller's IP address; null if the connection has none."""

    ip: str | None


class Published(BaseModel):
    """The current list of public servers."""

    message: str
    public_mcp_servers: list[str]
    updated_by: str | None


class Tools(BaseModel):
    """Tools in the format of MCP."""

    tools: list[dict[str, Any]]


class ImportedServer(BaseModel):
    """A server that was added."""

    server_name: str
    server_id: str


class SkippedServer(BaseModel):
    """A server that already existed."""

    server_name: str
    reason: str


class RefusedServer(BaseModel):
    """A server that could not be added."""

    server_name: str
    error: str


class Imported(BaseModel):
    """The result for each server of a document."""

    imported: list[ImportedServer]
    skipped: list[SkippedServer]
    errors: list[RefusedServer]


class Remote(BaseModel):
    """The URL of a server at the gateway."""

    type: Literal["streamable-http"]
    url: str


class GatewayEntry(BaseModel):
    """A server in the format of LiteLLM's registry."""

    name: str
    title: str
    description: str
    version: str
    remotes: list[Remote]


class GatewayServer(BaseModel):
    """An entry of LiteLLM's registry."""

    server: GatewayEntry


class Gateway(BaseModel):
    """LiteLLM's registry: the portal itself, then every listed server."""

    servers: list[GatewayServer]


class ServerJson(GatewayEntry):
    """A `server.json` of 2025-12-11."""

    schema_: str = Field(alias="$schema")


class Official(BaseModel):
    """The registry's metadata of an entry."""

    status: Literal["active"]
    publishedAt: datetime
    updatedAt: datetime
    statusChangedAt: datetime
    isLatest: Literal[True]


class RegistryMeta(BaseModel):
    """Metadata of an entry, by source."""

    official: Official = Field(alias="io.modelcontextprotocol.registry/official")


class RegistryServer(BaseModel):
    """An entry of the registry."""

    server: ServerJson
    meta: RegistryMeta = Field(alias="_meta")


class RegistryPlace(BaseModel):
    """The number of entries on the page, and the cursor of the next page, if there is one."""

    count: int
    nextCursor: str = ""


class RegistryList(BaseModel):
    """A page of the registry."""

    servers: list[RegistryServer]
    metadata: RegistryPlace


class Apis(BaseModel):
    """The well-known APIs."""

    apis: list[ApiEntry]


class ToolWarning(BaseModel):
    """A warning about a tool definition, for reviewers."""


ToolChangesAnswer = shape(
    "ToolChanges", ToolChanges, items=list_of(shape("ToolChange", ToolChange))
)


class Connection(BaseModel):
    """A user's OAuth connection to a server; times are UTC."""

    server_id: str
    has_credential: bool
    expires_at: datetime | None
    is_expired: bool
    connected_at: datetime | None
    note: str | None = Field(None, description="What was not stored, and what to do about it.")


class NamedConnection(Connection):
    """A connection with the server's names, which are null if the server was deleted."""

    server_name: str | None
    alias: str | None
    credential_type: Literal["oauth2"]
