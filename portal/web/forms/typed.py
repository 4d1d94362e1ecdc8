"""What somebody typed, and what they chose for a secret that is stored already."""

from collections.abc import Mapping

from flask import g, request

_MODES = ("keep", "replace", "clear")


def typed_form() -> Mapping[str, str]:
    """What is typed: as it was sent, or made whole with what is held of it (`pages/drafts.py`)."""
    found: Mapping[str, str] = g.get("typed", request.form)
    return found


def secret_mode(name: str) -> str:
    """What a person chose for a stored secret: keep, replace or clear; blank where nothing was
    stored."""
    mode = typed_form().get(f"{name}__mode", "")
    return mode if mode in _MODES else ""


def unknown_modes() -> list[str]:
    """The secrets for which something was chosen that is no choice."""
    return sorted(name for name, mode in secret_modes().items() if mode and mode not in _MODES)


def secret_modes() -> dict[str, str]:
    """All such choices, to show them again when a form comes back."""
    return {
        key.removesuffix("__mode"): value
        for key, value in typed_form().items()
        if key.endswith("__mode")
    }
