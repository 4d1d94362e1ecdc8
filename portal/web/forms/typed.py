"""Form input, and the choices for stored secrets: keep, replace or clear."""

from collections.abc import Mapping

from flask import g, request

_MODES = ("keep", "replace", "clear")


def typed_form() -> Mapping[str, str]:
    """Return the submitted form, completed from the draft if there is one (`pages/drafts.py`)."""
    found: Mapping[str, str] = g.get("typed", request.form)
    return found


def secret_mode(name: str) -> str:
    """Return the choice for a stored secret: `keep`, `replace`, `clear`, or an empty string."""
    mode = typed_form().get(f"{name}__mode", "")
    return mode if mode in _MODES else ""


def unknown_modes() -> list[str]:
    """Return the names of secrets whose submitted choice is not valid."""
    return sorted(name for name, mode in secret_modes().items() if mode and mode not in _MODES)


def secret_modes() -> dict[str, str]:
    """Return all choices for stored secrets by field name, to show the form again."""
    return {
        key.removesuffix("__mode"): value
        for key, value in typed_form().items()
        if key.endswith("__mode")
    }
