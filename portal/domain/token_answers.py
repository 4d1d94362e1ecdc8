"""Token responses: validation against an Admin's rules, and the claimed account."""

import base64
import json
from collections.abc import Mapping
from typing import Any

_LONGEST_ACCOUNT = 320
_NAMES_OF_ACCOUNTS = ("email", "preferred_username", "upn", "name", "sub")


def broken_rule(rules: Mapping[str, Any] | None, answer: Mapping[str, Any]) -> str | None:
    """Return the field of the first `token_validation` rule that `answer` breaks, or None.

    A field is a key of the response or a dotted path into it. Values are compared as text, booleans
    as `true` and `false`.
    """
    for name, expected in (rules or {}).items():
        if _text(_found(answer, name)) != _text(expected):
            return name
    return None


def claimed_account(answer: Mapping[str, Any]) -> str | None:
    """Return the account name in the id_token for display only, or None.

    The id_token came over TLS from the token endpoint. Its signature is not verified.
    """
    claims = _claims(answer.get("id_token"))
    for name in _NAMES_OF_ACCOUNTS:
        value = claims.get(name)
        if isinstance(value, str) and 0 < len(value) <= _LONGEST_ACCOUNT and value.isprintable():
            return value
    return None


def _claims(token: object) -> Mapping[str, Any]:
    parts = token.split(".") if isinstance(token, str) else ()
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _found(answer: Mapping[str, Any], name: str) -> object:
    if name in answer:
        return answer[name]
    value: object = answer
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _text(value: object) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)
