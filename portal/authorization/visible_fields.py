"""Which fields of a server a caller sees."""

from enum import StrEnum

from portal.domain.principals import Principal, Role


class Visibility(StrEnum):
    """How much of a server a viewer sees."""

    FULL = "full"
    INVENTORY = "inventory"
    MEMBER = "member"
    RESTRICTED = "restricted"


class Show(StrEnum):
    """How a field is shown to viewers who may see it."""

    VERBATIM = "verbatim"
    ORIGIN = "origin"  # of a URL: scheme, host and port
    NAMES = "names"  # of a mapping: the keys, every value masked
    NO_VALUES = "no_values"  # of variables: names, scopes and descriptions
    ONLY_IS_PUBLIC = "only_is_public"  # of mcp_info
    KIND_OF_FAULT = "kind_of_fault"  # of a health error: what went wrong, without the host


def visibility(principal: Principal) -> Visibility:
    """Return the column of the field table that applies to `principal`."""
    if principal.is_restricted_key:
        return Visibility.RESTRICTED
    if principal.role is Role.ADMIN:
        return Visibility.FULL
    return Visibility.INVENTORY if principal.role is Role.ADMIN_VIEWER else Visibility.MEMBER


_ALL = dict.fromkeys(Visibility, Show.VERBATIM)
_NOT_RESTRICTED: dict[Visibility, Show] = {
    v: Show.VERBATIM for v in Visibility if v is not Visibility.RESTRICTED
}
_URL = {Visibility.FULL: Show.VERBATIM, Visibility.INVENTORY: Show.ORIGIN}
_MAPPING = {Visibility.FULL: Show.VERBATIM, Visibility.INVENTORY: Show.NAMES}
_ADMIN_VIEW = {Visibility.FULL: Show.VERBATIM, Visibility.INVENTORY: Show.VERBATIM}

# An allow-list: fields that are not here are shown to nobody.
VISIBLE_FIELDS: dict[str, dict[Visibility, Show]] = {
    **dict.fromkeys(
        (
            "server_id",
            "server_name",
            "alias",
            "description",
            "transport",
            "auth_type",
            "is_byok",
            "byok_description",
            "byok_api_key_help_url",
            "has_user_credential",
        ),
        _ALL,
    ),
    "mcp_info": {**_NOT_RESTRICTED, Visibility.RESTRICTED: Show.ONLY_IS_PUBLIC},
    "health_check_error": {**_ADMIN_VIEW, Visibility.MEMBER: Show.KIND_OF_FAULT},
    **dict.fromkeys(
        (
            "instructions",
            "mcp_access_groups",
            "teams",
            "allowed_tools",
            "tool_name_to_display_name",
            "tool_name_to_description",
            "oauth2_flow",
            "allow_all_keys",
            "available_on_public_internet",
            "delegate_auth_to_upstream",
            "oauth_passthrough",
            "source_url",
            "timeout",
            "status",
            "health_check_reason",
            "last_health_check",
            "approval_status",
            "submitted_by",
            "submitted_at",
            "reviewed_by",
            "reviewed_at",
            "review_notes",
            "created_at",
            "created_by",
            "updated_at",
            "updated_by",
            "version",
        ),
        _NOT_RESTRICTED,
    ),
    **dict.fromkeys(
        ("url", "spec_path", "authorization_url", "token_url", "registration_url"), _URL
    ),
    **dict.fromkeys(("static_headers", "env"), _MAPPING),
    **dict.fromkeys(("extra_headers", "command", "token_validation", "origins"), _ADMIN_VIEW),
    "args": {Visibility.FULL: Show.VERBATIM},
    "env_vars": {Visibility.FULL: Show.VERBATIM, Visibility.INVENTORY: Show.NO_VALUES},
}


def shown(principal: Principal, field: str) -> Show | None:
    """Return how `field` of a server is shown to `principal`; None if it is not."""
    return VISIBLE_FIELDS.get(field, {}).get(visibility(principal))
