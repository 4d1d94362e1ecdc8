"""The logos that an Admin may choose for a server's card.

A logo is a symbol of the portal's own sprite, stored as `mcp_info.logo_url`. A URL set through the
API stays until another logo is chosen. A card shows it only if it is one of the portal's own files,
otherwise two letters.
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
CHOICES = ((LETTERS, "Initials"), *SYMBOLS)
_NAMES = frozenset(name for name, _ in SYMBOLS)


def chosen(info: Mapping[str, Any] | None) -> str:
    """Return the logo choice of `mcp_info`: a symbol, `LETTERS`, or `OTHER` for another URL."""
    url = (info or {}).get("logo_url")
    if not isinstance(url, str) or not url:
        return LETTERS
    name = url.removeprefix(SPRITE)
    return name if name != url and name in _NAMES else OTHER


def with_logo(info: Mapping[str, Any] | None, choice: str) -> dict[str, Any] | None:
    """Return `mcp_info` with the chosen logo. Its other keys stay."""
    kept = {
        name: value for name, value in (info or {}).items() if name not in ("logo_url", "is_public")
    }
    return kept | ({"logo_url": SPRITE + choice} if choice in _NAMES else {}) or None
