"""The local pictures that an Admin may choose for a server's card (behaviour UI-16).

A picture is a symbol of the portal's own sprite, kept as `mcp_info.logo_url`. An address set over
the API stays as it is until another is chosen; a card shows it only if it is one of the portal's
own files, else two letters.
"""

from collections.abc import Mapping
from typing import Any

SPRITE = "/static/icons.svg#"
LETTERS = ""
OTHER = "other"
SYMBOLS = (
    ("server", "Server"),
    ("database", "Database"),
    ("cloud", "Cloud"),
    ("code", "Code"),
    ("chat", "Chat"),
    ("tasks", "Tasks"),
    ("file", "Files"),
    ("search", "Search"),
    ("globe", "Web"),
    ("terminal", "Terminal"),
    ("cart", "Shop"),
    ("coins", "Money"),
)
CHOICES = ((LETTERS, "Its first letters"), *SYMBOLS)
_NAMES = frozenset(name for name, _ in SYMBOLS)


def chosen(info: Mapping[str, Any] | None) -> str:
    """Which choice a stored `mcp_info` amounts to: a symbol, letters, or `OTHER` for an address of
    somebody's own."""
    url = (info or {}).get("logo_url")
    if not isinstance(url, str) or not url:
        return LETTERS
    name = url.removeprefix(SPRITE)
    return name if name != url and name in _NAMES else OTHER


def with_logo(info: Mapping[str, Any] | None, choice: str) -> dict[str, Any] | None:
    """A stored `mcp_info` with the choice in it; what else it holds stays."""
    kept = {
        name: value for name, value in (info or {}).items() if name not in ("logo_url", "is_public")
    }
    return kept | ({"logo_url": SPRITE + choice} if choice in _NAMES else {}) or None
