"""The form for a server's tools: which are enabled, and their names and descriptions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.datastructures import MultiDict

from portal.domain.servers import ServerFields
from portal.services.servers.views import ServerView

_LONGEST = {"name": 200, "text": 4_000}


@dataclass(frozen=True)
class ToolChoice:
    """The submitted form: listed tools, selected tools, display names and descriptions."""

    offered: tuple[str, ...]
    selected: frozenset[str]
    later: bool
    names: Mapping[str, str]
    texts: Mapping[str, str]
    errors: Mapping[str, list[str]] = field(default_factory=dict)


def read_choice(sent: MultiDict[str, str]) -> ToolChoice:
    """Return the submitted form of the Tools tab, with errors by field name."""
    offered = sent.getlist("tool")[:2_000]
    named = {tool: sent.get(f"name-{i}", "").strip() for i, tool in enumerate(offered)}
    texts = {tool: sent.get(f"text-{i}", "").strip() for i, tool in enumerate(offered)}
    ticked = frozenset(sent.getlist("enabled")) & frozenset(offered)
    later = "later" in sent
    errors: dict[str, list[str]] = (
        {} if offered else {"": ["No tools were submitted. Reload the list."]}
    )
    for i, tool in enumerate(offered):
        if any(c.isspace() for c in named[tool]):
            errors[f"name-{i}"] = [f"The display name of {tool} must not contain spaces."]
        elif len(named[tool]) > _LONGEST["name"] or len(texts[tool]) > _LONGEST["text"]:
            errors[f"name-{i}"] = [f"The display name or description of {tool} is too long."]
    if later and len(ticked) < len(offered):
        errors["later"] = [
            "To enable tools that are added later, enable all tools. Otherwise, clear this option."
        ]
    return ToolChoice(tuple(offered), ticked, later, named, texts, errors)


def chosen_fields(choice: ToolChoice, view: ServerView) -> ServerFields:
    """Return the choice as changed fields of the server `view`.

    Tools that the form did not list keep their state.
    """
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
