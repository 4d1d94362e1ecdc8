"""Conversion of fields in imported documents to the types of a server definition."""

from collections.abc import Mapping
from typing import Any, cast

from portal.domain.errors import InvalidInput
from portal.domain.servers import AuthType, OAuthGrantType, ServerFields, VariableEntry
from portal.domain.variables import Scope

_MOST = 8_192
_MOST_LISTED = 500
_TEXTS = (
    "alias",
    "description",
    "instructions",
    "spec_path",
    "authorization_url",
    "token_url",
    "registration_url",
    "byok_api_key_help_url",
    "source_url",
)
_LISTS = ("allowed_tools", "extra_headers", "byok_description", "mcp_access_groups")
_FLAGS = ("allow_all_keys", "available_on_public_internet", "is_byok")
_CREDENTIALS = ("auth_value", "client_id", "client_secret")


def text_of(raw: Mapping[str, Any], name: str) -> str:
    """Return a field as text, or "" if missing. Numbers and booleans are converted."""
    value = raw.get(name)
    if value is None:
        return ""
    if isinstance(value, Mapping | list | tuple):
        raise InvalidInput(f"{name} must be a string.", field=name)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) > _MOST:
        raise InvalidInput(f"{name} is too long.", field=name)
    return text


def texts(raw: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return a field as a mapping of names to texts, or an empty one if missing."""
    found = raw.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping) or len(found) > _MOST_LISTED:
        raise InvalidInput(f"{name} must be an object with string values.", field=name)
    # Errors do not contain the name of an entry, which is arbitrary input.
    return {str(key): text_of({name: value}, name) for key, value in found.items()}


def listed(raw: Mapping[str, Any], name: str) -> list[Any]:
    """Return a field as a list, or an empty one if missing."""
    found = raw.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or len(found) > _MOST_LISTED:
        raise InvalidInput(f"{name} must be a list.", field=name)
    return found


def litellm_fields(raw: Mapping[str, Any]) -> ServerFields:
    """Return the fields of a LiteLLM `mcp_servers` entry, except connection and headers."""
    fields: dict[str, Any] = {name: text_of(raw, name) for name in _TEXTS if raw.get(name)}
    fields |= {
        name: [text_of({name: part}, name) for part in listed(raw, name)]
        for name in _LISTS
        if raw.get(name)
    }
    if raw.get("access_groups") and "mcp_access_groups" not in fields:
        fields["mcp_access_groups"] = [str(part) for part in listed(raw, "access_groups")]
    for name in _FLAGS:
        if name in raw:
            if not isinstance(raw[name], bool):
                raise InvalidInput(f"{name} must be true or false.", field=name)
            fields[name] = raw[name]
    if raw.get("timeout") is not None:
        fields["timeout"] = _seconds(raw["timeout"])
    for name, words in (("auth_type", AuthType), ("oauth2_flow", OAuthGrantType)):
        if raw.get(name):
            if str(raw[name]) not in list(words):
                raise InvalidInput(f"This {name} is not supported.", field=name)
            fields[name] = words(str(raw[name]))
    credentials = {name: text_of(raw, name) for name in _CREDENTIALS if raw.get(name)}
    if raw.get("authentication_token"):
        credentials.setdefault("auth_value", text_of(raw, "authentication_token"))
    if credentials:
        fields["credentials"] = credentials
    if raw.get("env_vars"):
        fields["env_vars"] = [_variable(entry) for entry in listed(raw, "env_vars")]
    return cast(ServerFields, fields)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 600:
        raise InvalidInput("timeout must be a number from 1 to 600 seconds.", field="timeout")
    return float(value)


def _variable(entry: Any) -> VariableEntry:
    if not isinstance(entry, Mapping) or not entry.get("name"):
        raise InvalidInput("An entry of env_vars has no name.", field="env_vars")
    scope = Scope.USER if entry.get("scope") == Scope.USER else Scope.GLOBAL
    value = text_of(entry, "value") or None
    note = text_of(entry, "description") or None
    return VariableEntry(name=str(entry["name"]), scope=scope.value, description=note, value=value)
