"""Request shapes: JSON types and sizes. Services check the meaning."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StringConstraints

from portal.domain.servers import AuthType, OAuthGrantType, Transport
from portal.services.servers.grants import ObjectPermission
from portal.web.api.payloads import Payload

_LARGEST_OBJECT = 2_000

Id = Annotated[str, StringConstraints(min_length=1, max_length=128)]
NewId = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^/\x00-\x1f\x7f]+$")
]
Short = Annotated[str, StringConstraints(max_length=200)]
Text = Annotated[str, StringConstraints(max_length=4_000)]
Value = Annotated[str, StringConstraints(max_length=8_192)]
Url = Annotated[str, StringConstraints(max_length=4_096)]
Word = Annotated[str, StringConstraints(max_length=256)]
Words = Annotated[list[Word], Field(max_length=500)]
Ids = Annotated[list[Id], Field(max_length=5_000)]
Values = Annotated[dict[Word, Value], Field(max_length=200)]
KeptValues = Annotated[dict[Word, Value | None], Field(max_length=200)]
ClearedSecrets = Annotated[
    list[Annotated[str, StringConstraints(max_length=400)]],
    Field(
        max_length=500,
        description=(
            "Stored secrets to clear: whole fields (`url`, `credentials`) or single entries "
            "(`static_headers.X-Key`, `credentials.client_secret`, `env_vars.NAME`)."
        ),
    ),
]
Texts = Annotated[dict[Word, Text], Field(max_length=200)]


def _bounded(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Limit a free-form object: the number of entries at all depths, and the length of texts."""
    left = _LARGEST_OBJECT
    waiting = list[Any]([value])
    while waiting:
        item = waiting.pop()
        entries: list[Any] = []
        if isinstance(item, dict):
            entries = [*item, *item.values()]
        elif isinstance(item, list):
            entries = item
        waiting.extend(entries)
        left -= len(entries)
        if left < 0 or (isinstance(item, str) and len(item) > 8_192):
            raise ValueError("Value is too large")
    return value


Object = Annotated[dict[Word, JsonValue], Field(max_length=200), AfterValidator(_bounded)]


def _is_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("Enter the time as 2026-12-31T23:59:59Z")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
    except OverflowError:
        raise ValueError("The time is out of range") from None


Time = Annotated[datetime, Field(strict=False), BeforeValidator(_is_text), AfterValidator(_in_utc)]


class Credentials(Payload):
    """The `credentials` of a server; write-only."""

    auth_value: Value | None = None
    client_id: Value | None = None
    client_secret: Value | None = None
    scopes: Words | None = None
    aws_access_key_id: Value | None = None
    aws_secret_access_key: Value | None = None
    aws_session_token: Value | None = None
    aws_region_name: Value | None = None
    aws_service_name: Value | None = None
    aws_role_name: Value | None = None
    aws_session_name: Value | None = None
    audience: Value | None = None
    token_exchange_endpoint: Url | None = None
    subject_token_type: Value | None = None


class VariableEntry(Payload):
    """An entry of `env_vars`. The default scope is global."""

    name: Annotated[str, StringConstraints(max_length=128)]
    value: Value | None = None
    scope: Literal["global", "user"] | None = None
    description: Text | None = None


def _with_names(value: object) -> object:
    """Remove entries that are null or have no name."""
    if not isinstance(value, list):
        return value
    return [
        entry
        for entry in value
        if entry is not None and not (isinstance(entry, dict) and not entry.get("name"))
    ]


class ServerBody(Payload):
    """A server to create.

    In the fields that hold secrets (`url`, `spec_path`, the OAuth URLs, `args`, and the values in
    `credentials`, `static_headers`, `env` and `env_vars`) `null`, `""` and masks such as `****`
    keep the stored value; `clear_secrets` clears it. A mask without a stored value is an error.
    """

    server_id: Word | None = None
    server_name: Word | None = None
    alias: Word | None = None
    description: Text | None = None
    instructions: Value | None = None
    url: Url | None = None
    spec_path: Url | None = None
    transport: Annotated[Transport, Field(strict=False)] | None = None
    auth_type: Annotated[AuthType, Field(strict=False)] | None = None
    credentials: Credentials | None = None
    mcp_info: Object | None = None
    mcp_access_groups: Annotated[list[Short], Field(max_length=500)] | None = None
    allowed_tools: Words | None = None
    tool_name_to_display_name: Texts | None = None
    tool_name_to_description: Texts | None = None
    extra_headers: Words | None = None
    static_headers: KeptValues | None = None
    env_vars: (
        Annotated[list[VariableEntry], Field(max_length=200), BeforeValidator(_with_names)] | None
    ) = None
    command: Word | None = None
    args: Annotated[list[Value], Field(max_length=500)] | None = None
    env: KeptValues | None = None
    authorization_url: Url | None = None
    token_url: Url | None = None
    registration_url: Url | None = None
    oauth2_flow: Annotated[OAuthGrantType, Field(strict=False)] | None = None
    token_validation: Object | None = None
    allow_all_keys: bool | None = None
    available_on_public_internet: bool | None = None
    delegate_auth_to_upstream: bool | None = None
    oauth_passthrough: bool | None = None
    is_byok: bool | None = None
    byok_description: Annotated[list[Text], Field(max_length=500)] | None = None
    byok_api_key_help_url: Url | None = None
    source_url: Url | None = None
    timeout: Annotated[float, Field(ge=1, le=600, allow_inf_nan=False)] | None = None
    clear_secrets: ClearedSecrets | None = None

    def sent(self) -> dict[str, Any]:
        """Return the sent fields, always with the list of secrets to clear."""
        return {**super().sent(), "clear_secrets": self.clear_secrets or []}


class ServerChange(ServerBody):
    """Changes to a server."""

    server_id: Word
    version: int | None = None
    keep_credentials: bool | None = None


class PublicServers(Payload):
    """The servers to list publicly."""

    mcp_server_ids: Ids


class OwnValues(Payload):
    """The caller's values of a server's variables."""

    values: Annotated[
        dict[Word, Annotated[str, StringConstraints(max_length=65_536)] | None],
        Field(max_length=200),
    ]


class OwnKey(Payload):
    """The caller's key for a server."""

    credential: Annotated[str, StringConstraints(max_length=65_536)]
    save: bool = True


class ToolCall(Payload):
    """A tool call. The tool checks its arguments."""

    server_id: Word
    name: Word
    arguments: dict[str, JsonValue] = Field(default_factory=dict)


class Permission(Payload):
    """The `object_permission` of a user, team or key; all fields are optional."""

    mcp_servers: Ids | None = None
    mcp_access_groups: Annotated[list[Short], Field(max_length=500)] | None = None
    mcp_tool_permissions: Annotated[dict[Word, Words], Field(max_length=500)] | None = None
    mcp_toolsets: Annotated[list[Id], Field(max_length=500)] | None = None

    def grants(self) -> ObjectPermission:
        """Return the grants for the services."""
        return ObjectPermission(
            mcp_servers=tuple(self.mcp_servers or ()),
            mcp_access_groups=tuple(self.mcp_access_groups or ()),
            mcp_tool_permissions={
                k: tuple(v) for k, v in (self.mcp_tool_permissions or {}).items()
            },
            mcp_toolsets=tuple(self.mcp_toolsets or ()),
        )


class Granted(Payload):
    """A user, team or key with grants."""

    object_permission: Permission | None = None

    def own_fields(self) -> dict[str, Any]:
        """Return the sent fields without grants and members."""
        apart = ("object_permission", "access_group_ids", "members_with_roles")
        return {name: value for name, value in self.sent().items() if name not in apart}

    def permission(self) -> ObjectPermission | None:
        """Return the grants to write. None keeps the stored ones, an explicit null removes all."""
        if "object_permission" not in self.model_fields_set:
            return None
        return self.object_permission.grants() if self.object_permission else ObjectPermission()


class GrantedGroups(Granted):
    """A team or key with access groups."""

    access_group_ids: Annotated[list[Id], Field(max_length=500)] | None = None

    def group_ids(self) -> list[str] | None:
        """Return the access groups to write; None keeps the stored ones."""
        return (
            (self.access_group_ids or []) if "access_group_ids" in self.model_fields_set else None
        )


class UserChange(Granted):
    """Changes to a user."""

    email: Annotated[str, StringConstraints(max_length=320)] | None = None
    display_name: Short | None = None
    role: Word = ""
    is_active: bool = True
    password: Annotated[str, StringConstraints(max_length=512)] | None = None


class UserBody(UserChange):
    """A user to create."""

    user_id: NewId | None = None


class Member(Payload):
    """A member of a team."""

    user_id: Id
    role: Word = "user"


class TeamChange(GrantedGroups):
    """Changes to a team."""

    team_alias: Short = ""
    members_with_roles: Annotated[list[Member], Field(max_length=5_000)] | None = None
    metadata: Object | None = None

    def members(self) -> list[tuple[str, str]] | None:
        """Return the members to write; None keeps the stored ones."""
        if "members_with_roles" not in self.model_fields_set:
            return None
        return [(member.user_id, member.role) for member in self.members_with_roles or ()]


class TeamBody(TeamChange):
    """A team to create."""

    team_id: NewId | None = None


class KeyChange(GrantedGroups):
    """Changes to a key."""

    key_alias: Short | None = None
    allowed_routes: Words = Field(default_factory=list)
    expires_at: Time | None = None
    follows_owner: bool | None = None


class KeyBody(KeyChange):
    """A key to create."""

    user_id: Id | None = None
    team_id: Id | None = None


class GroupChange(Payload):
    """Changes to an access group."""

    name: Short = ""
    description: Text | None = None
    mcp_server_ids: Ids = Field(default_factory=list)


class GroupBody(GroupChange):
    """An access group to create."""

    name: Short


class SettingsChange(Payload):
    """Changes to the instance settings."""

    user_mcp_management_mode: Word = ""
    mcp_required_fields: Words = Field(default_factory=list)
    enable_mcp_registry: bool = False
    mcp_internal_ip_ranges: Words = Field(default_factory=list)
    trusted_proxies: Words = Field(default_factory=list)
    trusted_redirect_origins: Words = Field(default_factory=list)
    key_max_age_days: int | None = None
    public_mcp_servers: Ids = Field(default_factory=list)
    confirm_external: bool = False
