"""Embedded mode without setup: it creates its own keys in `var/`, readable only by the owner."""

import base64
import os
import secrets
from collections.abc import MutableMapping
from pathlib import Path

_KEYS = ("PORTAL_SECRET_KEY", "PORTAL_ENCRYPTION_KEYS")


def prepare_environment(environment: MutableMapping[str, str]) -> None:
    """Set missing keys from `portal.env` next to an SQLite database, creating it if needed.

    For any other database, keys are never generated: the operator sets the same ones for all
    processes.
    """
    url = environment.get("PORTAL_DATABASE_URL") or "sqlite:///var/portal.db"
    if not url.startswith("sqlite:///") or all(environment.get(name) for name in _KEYS):
        return
    database = Path(url.removeprefix("sqlite:///"))
    file = database.parent / "portal.env"
    if not file.exists():
        if database.exists():
            return  # a database without its keys; new ones would hide that
        _write(file)
    for line in file.read_text().splitlines():
        name, _, value = line.partition("=")
        if name in _KEYS and not environment.get(name):
            environment[name] = value


def _write(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    text = f"PORTAL_SECRET_KEY={secrets.token_urlsafe(48)}\nPORTAL_ENCRYPTION_KEYS=k1:{key}\n"
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return  # another process was first; use its keys
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
