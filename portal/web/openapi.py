"""The OpenAPI 3.1 document of the API, built from the URL rules and the `@documented` entries."""

import re
import sys
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Literal

from flask import Flask
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from werkzeug.routing import Rule

from portal.resources import portal_version
from portal.settings import Settings
from portal.web.context import OPEN_ENDPOINTS
from portal.web.documented import Entry, Query

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
WORDS: dict[int, tuple[str, ...]] = {
    400: (
        "invalid_request",
        "already_active",
        "already_exists",
        "already_rejected",
        "insecure_authorization_server",
        "invalid_client",
        "missing_client_id",
        "missing_required_fields",
        "mixed_providers",
        "no_authorization_server",
        "no_person",
        "no_team",
        "not_byok",
        "not_oauth",
        "reserved_id",
        "stdio_not_allowed",
    ),
    401: ("unauthenticated", "sign_in_needed", "byok_auth_required"),
    403: ("forbidden",),
    404: ("not_found",),
    405: ("method_not_allowed",),
    409: (
        "conflict",
        "credentials_would_move",
        "expired",
        "issuer_changed",
        "stale_definition",
        "stale_version",
        "would_be_external",
    ),
    412: ("missing_user_env_vars",),
    413: ("too_large",),
    415: ("unsupported_media_type",),
    422: ("invalid",),
    429: ("rate_limited",),
    500: ("internal_error", "misconfigured"),
    502: ("upstream_failed", "oauth_refused"),
    503: ("unavailable", "busy"),
    504: ("upstream_timeout",),
}
"""The stable error codes of `detail.error`, by HTTP status."""

_TAGS = {
    "servers": "MCP servers",
    "credentials": "My credentials",
    "keys": "API keys",
    "access_groups": "Access groups",
    "me": "Current user",
    "explain": "Explain access",
    "import_export": "Import",
    "audit": "Audit log",
    "document": "This document",
    "connections": "My connections",
    "drafts": "Temporary servers",
    "openapi": "OpenAPI services",
    "oauth_check": "OAuth check",
}
_WORDS_OF_IDS = {
    "access_groups": "groups",
    "explain": "access",
    "import_export": "exchange",
    "drafts": "temporary",
    "discover": "catalog",
    "openapi": "catalog",
    "review_queue": "submissions",
}
"""What ids of operations call a feature otherwise: programs made from the document know these ids,
and so do links into `/docs/api`."""
_PARAMETERS = {
    "server_id": ("ID, name or alias of an MCP server.", "notes"),
    "name": ("Full name of a server in the registry.", "com.example.portal/notes"),
    "version": ("A version, or `latest`.", "latest"),
}
_REF = "#/components/schemas/{model}"
_ANSWER = "answer"
_BODY = "body"
_QUERY = "query"
_PARAMETER = re.compile(r"<(?:[^<>:]+:)?([^<>]+)>")
_ABOUT = """\
The JSON API of the portal. Paths under `/v1/mcp` are compatible with LiteLLM's MCP management API.

Authenticate with an API key (create one under *My API keys*), or with the session cookie and the
page's CSRF token in `X-CSRFToken`. If a key is sent, the session is ignored. All errors have the
same body: `detail.error` is a stable error code, `detail.message` is for people.
"""


class Fault(BaseModel):
    """An invalid field."""

    field: str
    message: str


class ErrorDetail(BaseModel):
    """Error code, message and invalid field. Some error codes have more fields."""

    model_config = ConfigDict(extra="allow")

    error: str
    message: str
    field: str | None
    errors: list[Fault] = Field([], description="All invalid fields, with 422.")
    setup_url: str = Field(
        "", description="Page where the user adds the missing credentials, with 401 and 412."
    )
    names: list[str] = Field([], description="Names of the missing variables, with 412.")
    reason: str = Field(
        "", description="Health reason code of the failed server, with 502 and 504."
    )


class Error(BaseModel):
    """The body of every error."""

    detail: ErrorDetail


class _Schemas(GenerateJsonSchema):
    """JSON Schema of views: all fields of a frozen view are required, and fields have no titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:
        if self.mode == "serialization" and field["type"] == "dataclass-field":
            return True
        return super().field_is_required(field, total)


def is_ours(app: Flask, rule: Rule) -> bool:
    """Return whether a rule belongs to the JSON API. OAuth endpoints do not (RFC 8414)."""
    if rule.rule.startswith("/v1/mcp/oauth/") or hasattr(
        app.view_functions[rule.endpoint], "marks"
    ):
        return False
    return rule.rule.startswith(("/v1/", "/v0.1/"))


def operations(app: Flask) -> Iterator[tuple[str, Rule, Entry | None]]:
    """Yield each method of each API rule, with its entry or None."""
    for rule in app.url_map.iter_rules():
        if is_ours(app, rule):
            entry = getattr(app.view_functions[rule.endpoint], "entry", None)
            yield from (
                (method, rule, entry) for method in METHODS if method in (rule.methods or ())
            )


def document(app: Flask) -> dict[str, Any]:
    """Return the document of this application, cached. The caller must not change it."""
    found: dict[str, Any] | None = app.extensions.get("openapi")
    if found is None:
        found = app.extensions["openapi"] = _build(app)
    return found


def _build(app: Flask) -> dict[str, Any]:
    settings = app.extensions["settings"]
    assert isinstance(settings, Settings)
    known = [(method, rule, entry) for method, rule, entry in operations(app) if entry is not None]
    schemas, components = _schemas(known)
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, str] = {}
    for method, rule, entry in known:
        found = _operation(app, method, rule, entry, schemas)
        paths.setdefault(_PARAMETER.sub(r"{\1}", rule.rule), {})[method.lower()] = found
        tags[found["tags"][0]] = _module_doc(app, rule)
    return {
        "openapi": "3.1.0",
        "info": {"title": "MCP Portal API", "version": portal_version(), "description": _ABOUT},
        "servers": [{"url": settings.public_url}],
        "tags": [{"name": name, "description": about} for name, about in tags.items()],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {f"Error{status}": _error(status) for status in WORDS},
            "securitySchemes": _security_schemes(https=settings.https),
        },
    }


def _schemas(
    known: list[tuple[str, Rule, Entry]],
) -> tuple[dict[Any, JsonSchemaValue], dict[str, Any]]:
    """Return the schemas of all bodies, responses and parameters, and their components."""
    wanted: list[tuple[Any, Literal["validation", "serialization"], TypeAdapter[Any]]] = [
        ("error", "serialization", TypeAdapter(Error))
    ]
    for method, rule, entry in known:
        if entry.gives is not None:
            wanted.append(((_ANSWER, method, rule.rule), "serialization", TypeAdapter(entry.gives)))
        if entry.takes is not None:
            wanted.append(((_BODY, method, rule.rule), "validation", TypeAdapter(entry.takes)))
        wanted.extend(
            ((_QUERY, method, rule.rule, query.name), "validation", TypeAdapter(query.kind))
            for query in entry.query
        )
    found, definitions = TypeAdapter.json_schemas(
        wanted, ref_template=_REF, schema_generator=_Schemas
    )
    return {key: schema for (key, _), schema in found.items()}, definitions["$defs"]


def _operation(
    app: Flask, method: str, rule: Rule, entry: Entry, schemas: dict[Any, Any]
) -> dict[str, Any]:
    feature = rule.endpoint.partition(".")[0].removeprefix("api_")
    summary, _, about = (app.view_functions[rule.endpoint].__doc__ or "").strip().partition("\n")
    found: dict[str, Any] = {
        "operationId": operation_id(rule.endpoint),
        "tags": [_TAGS.get(feature, feature.replace("_", " ").capitalize())],
        "summary": summary.rstrip("."),
        "description": " ".join(about.split()),
        "parameters": [
            *(_in_path(name) for name in _PARAMETER.findall(rule.rule)),
            *(
                _in_query(query, schemas[(_QUERY, method, rule.rule, query.name)])
                for query in entry.query
            ),
        ],
        "responses": _responses(method, rule, entry, schemas),
        "security": _security(method) if rule.endpoint not in OPEN_ENDPOINTS else [],
    }
    if entry.takes is not None:
        content = {
            "schema": schemas[(_BODY, method, rule.rule)],
            "example": dict(entry.example or {}),
        }
        found["requestBody"] = {
            "required": entry.needs_body,
            "content": {"application/json": content},
        }
    return {
        name: value
        for name, value in found.items()
        if value != "" and (value or name != "parameters")
    }


def operation_id(endpoint: str) -> str:
    """Return the operation ID of an endpoint: `users_create` for `api_users.create_user`."""
    feature, _, verb = endpoint.removeprefix("api_").partition(".")
    feature = _WORDS_OF_IDS.get(feature, feature)
    own_name = re.compile(rf"_{feature.removesuffix('s')}s?$")
    return f"{feature}_{own_name.sub('', verb)}"


def _in_path(name: str) -> dict[str, Any]:
    about, example = _PARAMETERS.get(
        name, (f"ID of the {name.removesuffix('_id').replace('_', ' ')}.", None)
    )
    schema = {"type": "string", "minLength": 1}
    found = {"name": name, "in": "path", "required": True, "description": about, "schema": schema}
    return found if example is None else {**found, "example": example}


def _in_query(query: Query, schema: Any) -> dict[str, Any]:
    return {"name": query.name, "in": "query", "description": query.about, "schema": schema}


def _responses(method: str, rule: Rule, entry: Entry, schemas: dict[Any, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(entry.status).phrase}
    if entry.gives is not None:
        answer["content"] = {"application/json": {"schema": schemas[(_ANSWER, method, rule.rule)]}}
    found: dict[str, Any] = {str(entry.status): answer}
    for status in sorted(_statuses(rule, entry)):
        is_error = status >= HTTPStatus.BAD_REQUEST
        found[str(status)] = (
            {"$ref": f"#/components/responses/Error{status}"}
            if is_error
            else {"description": HTTPStatus(status).phrase}
        )
    return found


def _statuses(rule: Rule, entry: Entry) -> set[int]:
    """Return the statuses that a route may return besides its success status."""
    found = {400, 500, 503, *entry.also}
    if rule.endpoint not in OPEN_ENDPOINTS:
        found |= {401, 403}
    if rule.arguments:
        found |= {404}
    if entry.query:
        found |= {422}
    if entry.takes is not None:
        found |= {413, 415, 422}
    return found


def _error(status: int) -> dict[str, Any]:
    words = {"type": "object", "properties": {"error": {"enum": list(WORDS[status])}}}
    schema = {"allOf": [{"$ref": _REF.format(model="Error")}, {"properties": {"detail": words}}]}
    about = f"{HTTPStatus(status).phrase}: {', '.join(f'`{word}`' for word in WORDS[status])}."
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _security(method: str) -> list[dict[str, list[str]]]:
    session: dict[str, list[str]] = (
        {"session": []} if method == "GET" else {"session": [], "csrf": []}
    )
    return [{"bearer": []}, {"apiKey": []}, session]


def _security_schemes(*, https: bool) -> dict[str, Any]:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key: `Authorization: Bearer sk-…`.",
        },
        "apiKey": {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "description": "An API key in its own header.",
        },
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": "__Host-portal" if https else "portal",
            "description": "Session cookie of a signed-in user.",
        },
        "csrf": {
            "type": "apiKey",
            "in": "header",
            "name": "X-CSRFToken",
            "description": "CSRF token of the session. Required with the cookie for changes.",
        },
    }


def _module_doc(app: Flask, rule: Rule) -> str:
    """Return the first line of the docstring of a handler's module."""
    module = sys.modules[app.view_functions[rule.endpoint].__module__]
    return (module.__doc__ or "").strip().partition("\n")[0]
