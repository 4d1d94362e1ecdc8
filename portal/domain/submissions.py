"""What Members propose: which fields are theirs to set, what a submission must hold, and the steps
of a review."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, cast

from portal.domain.errors import InvalidRequest, Misconfigured
from portal.domain.servers import ServerFields


class Step(StrEnum):
    """What happened to a submission."""

    SUBMITTED = "submitted"
    RESUBMITTED = "resubmitted"
    PROPOSED = "proposed"  # a change of a live server, which stays as it was approved meanwhile
    APPROVED = "approved"
    REJECTED = "rejected"
    DECLINED = "declined"  # the proposed change only; the live server goes on

    @property
    def label(self) -> str:
        """The step as people read it."""
        return {"proposed": "Change proposed", "declined": "Change declined"}.get(
            self.value, self.value.capitalize()
        )


DECISIONS = frozenset({Step.APPROVED, Step.REJECTED, Step.DECLINED})
REQUIRABLE = frozenset(ServerFields.__annotations__) - {"version", "keep_credentials"}
"""The names that `mcp_required_fields` may hold."""
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
"""What an Admin decides, with the value that asks for nothing."""
_NOT_OF_A_REMOTE_SERVER = ("command", "args")
_LABELS = {
    "alias": "Alias",
    "allow_all_keys": "Open to everyone",
    "auth_type": "Sign-in other than none",
    "authorization_url": "Authorization URL",
    "available_on_public_internet": "Reachable from the internet",
    "delegate_auth_to_upstream": "Delegated sign-in",
    "env_vars": "Variables",
    "extra_headers": "Headers passed on",
    "is_public": "Listed publicly",
    "mcp_access_groups": "Access groups",
    "oauth_passthrough": "Sign-in passed through",
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
    """A field as people read it."""
    return _LABELS.get(name) or name.replace("_", " ").capitalize()


def split_wishes(sent: Mapping[str, Any]) -> tuple[ServerFields, dict[str, Any]]:
    """What a Member sent as the definition they may make, and as wishes that only the reviewer
    sees."""
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
    """Whether a required field counts as there: not null, blank or an empty list, and a sign-in
    other than none."""
    return (
        value is not None
        and value != ""
        and value != []
        and not (name == "auth_type" and value == "none")
    )


def check_required(required: Iterable[str], sent: Mapping[str, object]) -> None:
    """Raise `InvalidRequest` naming the required fields that `sent` lacks, `Misconfigured` for an
    unknown name."""
    names = list(dict.fromkeys(required))
    unknown = [name for name in names if name not in REQUIRABLE]
    if unknown:
        raise Misconfigured(
            f"The setting mcp_required_fields names fields that do not exist: {', '.join(unknown)}."
            " Tell an Admin.",
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
