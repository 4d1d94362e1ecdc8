"""Submissions of Members: the fields they may set, required fields, and review steps."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, cast

from portal.domain.errors import InvalidRequest, Misconfigured
from portal.domain.servers import ServerFields


class Step(StrEnum):
    """A step in the history of a submission."""

    SUBMITTED = "submitted"
    RESUBMITTED = "resubmitted"
    PROPOSED = "proposed"  # a change to a live server, which stays as approved until then
    APPROVED = "approved"
    REJECTED = "rejected"
    DECLINED = "declined"  # only the proposed change; the live server stays active

    @property
    def label(self) -> str:
        """Return the step for display."""
        return {"proposed": "Change proposed", "declined": "Change declined"}.get(
            self.value, self.value.capitalize()
        )


DECISIONS = frozenset({Step.APPROVED, Step.REJECTED, Step.DECLINED})
REQUIRABLE = frozenset(ServerFields.__annotations__) - {"version", "keep_credentials"}
"""The allowed names in `mcp_required_fields`."""
_USUAL: dict[str, object] = {
    "server_id": None,
    "allow_all_keys": False,
    "mcp_access_groups": [],
    "available_on_public_internet": True,
    "delegate_auth_to_upstream": False,
    "oauth_passthrough": False,
    "is_public": False,
    "approval_status": None,
    "submitted_by": None,
    "submitted_at": None,
    "reviewed_by": None,
    "reviewed_at": None,
    "review_notes": None,
}
"""Fields that only an Admin decides, with their default values."""
_NOT_OF_A_REMOTE_SERVER = ("command", "args")
_LABELS = {
    "alias": "Alias",
    "allow_all_keys": "Open to everyone",
    "auth_type": "Authentication other than none",
    "authorization_url": "Authorization URL",
    "available_on_public_internet": "Available from any network",
    "delegate_auth_to_upstream": "Direct sign-in at the server",
    "env_vars": "Variables",
    "extra_headers": "Forwarded headers",
    "is_public": "Listed publicly",
    "mcp_access_groups": "Access groups",
    "oauth_passthrough": "Forwarded client token",
    "server_id": "ID",
    "registration_url": "Registration URL",
    "server_name": "Name",
    "source_url": "Source code",
    "spec_path": "OpenAPI document",
    "static_headers": "Headers",
    "token_url": "Token URL",
    "url": "Address",
}
_LONGEST_WISH = 200


def label_of(name: str) -> str:
    """Return the label of a field."""
    return _LABELS.get(name) or name.replace("_", " ").capitalize()


def split_wishes(sent: Mapping[str, Any]) -> tuple[ServerFields, dict[str, Any]]:
    """Split a Member's input into a definition, and requests that only the reviewer sees."""
    fields = {
        name: value
        for name, value in sent.items()
        if name not in _USUAL and name != "keep_credentials"
    }
    wishes = {name: sent[name] for name in _USUAL if sent.get(name) not in (None, _USUAL[name])}
    for name in _NOT_OF_A_REMOTE_SERVER:
        fields.pop(name, None)
    info = fields.get("mcp_info")
    if isinstance(info, Mapping) and "is_public" in info:
        fields["mcp_info"] = {name: value for name, value in info.items() if name != "is_public"}
        wishes |= {"is_public": True} if info["is_public"] is True else {}
    shortened = {n: v[:_LONGEST_WISH] if isinstance(v, str) else v for n, v in wishes.items()}
    return cast(ServerFields, fields), shortened


def is_given(name: str, value: object) -> bool:
    """Return whether a required field is set: not null, "" or [], and not `auth_type` none."""
    return (
        value is not None
        and value != ""
        and value != []
        and not (name == "auth_type" and value == "none")
    )


def check_required(required: Iterable[str], sent: Mapping[str, object]) -> None:
    """Raise `InvalidRequest` with the required fields that `sent` lacks.

    Raises `Misconfigured` for unknown names in `required`.
    """
    names = list(dict.fromkeys(required))
    unknown = [name for name in names if name not in REQUIRABLE]
    if unknown:
        raise Misconfigured(
            "The setting mcp_required_fields contains unknown fields: "
            f"{', '.join(unknown)}. Contact an Admin.",
            field="mcp_required_fields",
            fields=unknown,
        )
    missing = [name for name in names if not is_given(name, sent.get(name))]
    if missing:
        raise InvalidRequest(
            f"Required fields are missing: {', '.join(missing)}.",
            code="missing_required_fields",
            field=missing[0],
            fields=missing,
        )
