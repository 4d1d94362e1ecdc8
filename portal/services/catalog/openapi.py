"""The built-in list of well-known OpenAPI services, and the preview of OpenAPI documents.

The list is a file of the package, read once. If it is missing or broken, the list is empty and the
error is logged once. A preview stores nothing and uses no secrets.
"""

import json
import logging
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.context_cost import approximate_tokens
from portal.domain.errors import InvalidInput, UpstreamFailure
from portal.domain.openapi.document import Document, absolute_server
from portal.domain.openapi.limits import DocumentError
from portal.domain.openapi.signin import SignIn
from portal.domain.principals import Principal
from portal.domain.servers import AuthType, check_url
from portal.services.runtime import runtime_of
from portal.store.database import release
from portal.upstream.documents import MAX_DOCUMENT_BYTES, parse_openapi

log = logging.getLogger("portal.catalog")
FILE = Path(__file__).parents[2] / "data" / "openapi_apis.json"
MOST_BYTES = MAX_DOCUMENT_BYTES
_PREVIEW_SECONDS = 10.0


@dataclass(frozen=True)
class KeyTool:
    """A main operation of an API."""

    name: str
    description: str


@dataclass(frozen=True)
class OAuthDetails:
    """How an API signs users in, and where it explains how to register."""

    authorization_url: str
    token_url: str
    pkce: bool
    docs_url: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApiEntry:
    """A well-known API; `base_url` is None if it differs per customer."""

    name: str
    title: str
    description: str
    icon: str
    spec_url: str
    base_url: str | None
    auth_type: AuthType
    oauth: OAuthDetails | None
    key_tools: tuple[KeyTool, ...]
    note: str | None


@dataclass(frozen=True)
class ToolRow:
    """A tool in the preview; `context_tokens` is the approximate size of its definition."""

    name: str
    method: str
    path: str
    description: str
    arguments: int
    context_tokens: int


@dataclass(frozen=True)
class DocumentPreview:
    """The preview of a document.

    `spec_url` is empty for a file, `base_url` if the document has no usable server.
    """

    title: str
    version: str
    spec_url: str = field(repr=False)
    base_url: str = field(repr=False)
    sign_in: SignIn
    tools: tuple[ToolRow, ...]
    left_out: int

    @property
    def context_tokens(self) -> int:
        """The approximate number of model tokens for all tool definitions."""
        return sum(tool.context_tokens for tool in self.tools)


def list_apis(session: Session, principal: Principal, *, query: str = "") -> tuple[ApiEntry, ...]:
    """Return the entries with `query` in their name, title, description or key tools."""
    authz.require(principal, Action.CATALOG_READ)
    words = query.strip().casefold()
    return tuple(entry for entry in _read_apis(FILE) if words in _searched(entry))


def get_api(session: Session, principal: Principal, name: str) -> ApiEntry | None:
    """Return the entry with this name, or None."""
    return next((entry for entry in list_apis(session, principal) if entry.name == name), None)


def preview_url(session: Session, principal: Principal, spec_url: str) -> DocumentPreview:
    """Fetch and preview a document. Raises `InvalidInput` or `InvalidRequest` on `spec_url`."""
    authz.require(principal, Action.SERVER_CREATE)
    if not spec_url:
        raise InvalidInput("Enter the address of a document, or choose a file.", field="spec_url")
    check_url(spec_url, "spec_url")
    mcp = runtime_of(session).mcp
    release(session)
    try:
        document = mcp.describe(spec_url, timeout=_PREVIEW_SECONDS)
    except UpstreamFailure as failure:
        raise InvalidInput(failure.message, field="spec_url") from None
    return _preview(document, spec_url)


def preview_file(session: Session, principal: Principal, content: bytes) -> DocumentPreview:
    """Preview an uploaded document without storing it. Raises `InvalidInput` on `file`."""
    authz.require(principal, Action.SERVER_CREATE)
    release(session)
    try:
        return _preview(parse_openapi(content), "")
    except DocumentError as error:
        raise InvalidInput(error.message, field="file") from None


@lru_cache(maxsize=8)
def _read_apis(file: Path) -> tuple[ApiEntry, ...]:
    """Return the entries of a file; none if it is missing or invalid, which is logged."""
    try:
        return tuple(
            _entry(found) for found in json.loads(file.read_text(encoding="utf-8"))["apis"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.error(
            "the list of well-known APIs cannot be read",
            extra={"file": file.name, "reason": str(error)},
        )
        return ()


def _entry(found: dict[str, Any]) -> ApiEntry:
    oauth = found.get("oauth")
    return ApiEntry(
        name=found["name"],
        title=found["title"],
        description=found["description"],
        icon=found["icon"],
        spec_url=found["spec_url"],
        base_url=found["base_url"],
        auth_type=AuthType(found["auth_type"]),
        oauth=OAuthDetails(**{**oauth, "scopes": tuple(oauth["scopes"])}) if oauth else None,
        key_tools=tuple(KeyTool(**tool) for tool in found["key_tools"]),
        note=found.get("note"),
    )


def _searched(entry: ApiEntry) -> str:
    tools = " ".join(f"{tool.name} {tool.description}" for tool in entry.key_tools)
    return f"{entry.name}\n{entry.title}\n{entry.description}\n{tools}".casefold()


def _preview(document: Document, spec_url: str) -> DocumentPreview:
    base = absolute_server(document.server, spec_url) or ""
    rows = tuple(
        ToolRow(
            operation.name,
            operation.method,
            operation.path,
            operation.summary or operation.tool.description,
            operation.arguments,
            approximate_tokens(
                operation.name, operation.tool.description, operation.tool.input_schema
            ),
        )
        for operation in document.operations
    )
    return DocumentPreview(
        document.title or "Untitled API",
        document.version,
        spec_url,
        base,
        document.sign_in,
        rows,
        document.left_out,
    )
