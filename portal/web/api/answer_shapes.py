"""The shapes of answers that are not a view as it is. What is in their fields is the services'
affair."""

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
    """Where a secret of a submission would go; `from` is where a stored one went before."""

    secret: str
    to: str
    before: str | None = Field(alias="from")
    is_own_host: bool


class AddressAnswer(BaseModel):
    """Where an address of a submission leads: its origin, whoever may read the address itself."""

    field: str
    origin: str
    is_own_host: bool


class MovedAnswer(BaseModel):
    """A stored secret that went elsewhere, or was forgotten; `people` is how many hold one of
    theirs."""

    secret: str
    before: str = Field(alias="from")
    to: str
    people: int | None = None


class SettledAnswer(BaseModel):
    """What became of stored secrets. `dropped` ended with the old way of signing in; `disconnected`
    counts people."""

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
    """The caller's address; null where the connection has none."""

    ip: str | None


class Published(BaseModel):
    """The list of public servers as it is now."""

    message: str
    public_mcp_servers: list[str]
    updated_by: str | None


class Tools(BaseModel):
    """Tools in MCP's own spelling."""

    tools: list[dict[str, Any]]


class ImportedServer(BaseModel):
    """A server that was added."""

    server_name: str
    server_id: str


class SkippedServer(BaseModel):
    """A server that was there already."""

    server_name: str
    reason: str


class RefusedServer(BaseModel):
    """A server that could not be added."""

    server_name: str
    error: str


class Imported(BaseModel):
    """What became of each server of a document."""

    imported: list[ImportedServer]
    skipped: list[SkippedServer]
    errors: list[RefusedServer]


class Remote(BaseModel):
    """Where a server is reached: at the gateway."""

    type: Literal["streamable-http"]
    url: str


class GatewayEntry(BaseModel):
    """A server as LiteLLM's registry has it."""

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
    """What the registry says of an entry."""

    status: Literal["active"]
    publishedAt: datetime
    updatedAt: datetime
    statusChangedAt: datetime
    isLatest: Literal[True]


class RegistryMeta(BaseModel):
    """Metadata of an entry, by who says it."""

    official: Official = Field(alias="io.modelcontextprotocol.registry/official")


class RegistryServer(BaseModel):
    """An entry of the registry."""

    server: ServerJson
    meta: RegistryMeta = Field(alias="_meta")


class RegistryPlace(BaseModel):
    """How many entries the page has, and where the next one begins; without `nextCursor` it is the
    last."""

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
    """Something in a definition that a reviewer should look at."""


ToolChangesAnswer = shape(
    "ToolChanges", ToolChanges, items=list_of(shape("ToolChange", ToolChange))
)


class Connection(BaseModel):
    """A person's OAuth connection to a server; times are UTC."""

    server_id: str
    has_credential: bool
    expires_at: datetime | None
    is_expired: bool
    connected_at: datetime | None
    note: str | None = Field(
        None, description="What was not stored of what was sent, and what to do."
    )


class NamedConnection(Connection):
    """The same in the list of one's own, with the server's names; null where it is gone."""

    server_name: str | None
    alias: str | None
    credential_type: Literal["oauth2"]
