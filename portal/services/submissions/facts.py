"""What a reviewer judges a server by, as data that can be stored and shown without secrets."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from portal.domain.servers import URL_FIELDS, AuthType
from portal.domain.submissions import REQUIRABLE, is_given, label_of
from portal.services.secrets.server_definition import opened
from portal.store.models import Server

Facts = dict[str, Any]
_PLAIN = (
    "server_name",
    "alias",
    "description",
    "instructions",
    "source_url",
    "transport",
    "auth_type",
    "oauth2_flow",
    "is_byok",
    "timeout",
    "allowed_tools",
    "extra_headers",
)


@dataclass(frozen=True)
class Change:
    """A fact before and after a change, for people; blank if it has no value."""

    label: str
    before: str
    after: str


@dataclass(frozen=True)
class Check:
    """A required field, and whether the submission has it."""

    field: str
    label: str
    passes: bool


def review_facts_of(session: Session, row: Server) -> Facts:
    """Return the facts of a server.

    A URL is its origin and an HMAC-SHA256 bound to the row, because the path may be secret.
    """
    urls = opened(session, row).urls
    facts: Facts = {name: getattr(row, name) for name in _PLAIN}
    facts |= {name: _url(row, name, urls[name]) if name in urls else None for name in URL_FIELDS}
    facts["headers"] = sorted(s.name for s in row.secrets if s.field == "static_headers")
    facts["credentials"] = sorted(s.name for s in row.secrets if s.field == "credentials")
    facts["variables"] = [
        {
            "name": v.name,
            "scope": v.scope,
            "description": v.description,
            "is_set": v.sealed is not None,
        }
        for v in row.variables
    ]
    return facts


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return the differences, fact by fact."""
    found = []
    for name in after:
        old = before.get(name)
        new = after[name]
        if old == new or (not old and not new):
            continue
        texts = _text(name, old), _text(name, new)
        if texts[0] == texts[1]:
            texts = texts[0], f"{texts[1]} (the path or another detail differs)"
        found.append(Change("Sign-in" if name == "auth_type" else label_of(name), *texts))
    return tuple(found)


def checks_of(required: Iterable[str], row: Server) -> tuple[Check, ...]:
    """Return the required fields, and whether the stored server has them; unknown names fail."""
    return tuple(
        Check(name, label_of(name), name in REQUIRABLE and _has(row, name)) for name in required
    )


def _has(row: Server, name: str) -> bool:
    if name in (*URL_FIELDS, "args", "static_headers", "env", "credentials"):
        return any(secret.field == name for secret in row.secrets)
    if name == "env_vars":
        return bool(row.variables)
    return is_given(name, getattr(row, name, None)) or is_given(name, (row.wishes or {}).get(name))


def _url(row: Server, name: str, url: str) -> dict[str, str | None]:
    digest = hmac.new(
        f"{row.incarnation}:{name}".encode(), url.encode(), hashlib.sha256
    ).hexdigest()
    hint = next((s.hint for s in row.secrets if s.field == name), None)
    return {"origin": hint, "hash": digest}


def _text(name: str, value: Any) -> str:
    if not value:
        return ""
    if isinstance(value, dict):
        return str(value.get("origin") or "")
    if name == "auth_type":
        return AuthType(value).label
    if name == "variables":
        return ", ".join(
            f"{v['name']} ({'each user' if v['scope'] == 'user' else 'everyone'})" for v in value
        )
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "yes" if value is True else str(value)
