"""Which tools of a server may be called, and what they are called here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.datastructures import MultiDict

from portal.domain.servers import ServerFields
from portal.services.servers.views import ServerView

_LONGEST = {"name": 200, "text": 4_000}


@dataclass(frozen=True)
class ToolChoice:
    """What was sent: the tools that the form offered, which of them are ticked, and their other
    names and texts."""

    offered: tuple[str, ...]
    selected: frozenset[str]
    later: bool
    names: Mapping[str, str]
    texts: Mapping[str, str]
    errors: Mapping[str, list[str]] = field(default_factory=dict)


def read_choice(sent: MultiDict[str, str]) -> ToolChoice:
    """The form of the Tools tab as it was sent, with what is wrong in it by field name."""
    offered = sent.getlist("tool")[:2_000]
    named = {tool: sent.get(f"name-{i}", "").strip() for i, tool in enumerate(offered)}
    texts = {tool: sent.get(f"text-{i}", "").strip() for i, tool in enumerate(offered)}
    ticked = frozenset(sent.getlist("enabled")) & frozenset(offered)
    later = "later" in sent
    errors: dict[str, list[str]] = (
        {} if offered else {"": ["No tool was sent. Load the list again."]}
    )
    for i, tool in enumerate(offered):
        if any(c.isspace() for c in named[tool]):
            errors[f"name-{i}"] = [f"The display name of {tool} may not hold a space."]
        elif len(named[tool]) > _LONGEST["name"] or len(texts[tool]) > _LONGEST["text"]:
            errors[f"name-{i}"] = [f"The display name or description of {tool} is too long."]
    if later and len(ticked) < len(offered):
        errors["later"] = [
            "Tools that are added later are open only together with all others. Tick all, or not"
            " this."
        ]
    return ToolChoice(tuple(offered), ticked, later, named, texts, errors)


def chosen_fields(choice: ToolChoice, view: ServerView) -> ServerFields:
    """The choice as a change of the server `view`; tools that the form did not offer stay as they
    are."""
    others = set(view.allowed_tools) - set(choice.offered)
    allowed = [] if choice.later else sorted(others | choice.selected)
    info: dict[str, Any] = {n: v for n, v in (view.mcp_info or {}).items() if n != "is_public"}
    enforced = not choice.later and not allowed  # an empty list alone means all tools
    fields: dict[str, Any] = {
        "allowed_tools": allowed,
        "tool_name_to_display_name": _overrides(
            view.tool_name_to_display_name, choice.offered, choice.names
        ),
        "tool_name_to_description": _overrides(
            view.tool_name_to_description, choice.offered, choice.texts
        ),
    }
    if enforced != (info.pop("tool_allowlist_enforced", None) is True):
        fields["mcp_info"] = {
            **info,
            **({"tool_allowlist_enforced": True} if enforced else {}),
        } or None
    before = vars(view)
    changed = {n: v for n, v in fields.items() if n == "mcp_info" or v != _plain(before[n])}
    return ServerFields(**changed)  # type: ignore[typeddict-item, no-any-return]


def _overrides(
    stored: Mapping[str, str] | None, offered: tuple[str, ...], typed: Mapping[str, str]
) -> dict[str, str]:
    kept = {tool: text for tool, text in (stored or {}).items() if tool not in offered}
    return kept | {tool: text for tool, text in typed.items() if text and text != tool}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, tuple) else dict(value or {})
