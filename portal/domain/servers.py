"""Data types of MCP servers, and the rules for a server definition."""

import re
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import TypedDict
from urllib.parse import urlsplit

from portal.domain.errors import InvalidInput, InvalidRequest
from portal.domain.variables import NAME as VARIABLE_NAME


class Transport(StrEnum):
    """The transport of an upstream."""

    SSE = "sse"
    HTTP = "http"
    STDIO = "stdio"


class AuthType(StrEnum):
    """How the portal authenticates to an upstream."""

    NONE = "none"
    API_KEY = "api_key"
    BEARER_TOKEN = "bearer_token"  # noqa: S105 - a wire format value
    TOKEN = "token"  # noqa: S105 - a wire format value
    BASIC = "basic"
    AUTHORIZATION = "authorization"
    OAUTH2 = "oauth2"
    OAUTH2_TOKEN_EXCHANGE = "oauth2_token_exchange"  # noqa: S105 - a wire format value
    AWS_SIGV4 = "aws_sigv4"

    @property
    def label(self) -> str:
        """Return the type for display."""
        return _AUTH_LABELS[self]

    @property
    def takes_a_key(self) -> bool:
        """Return whether a single secret value is sent, shared or of each user."""
        return self in _KEY_TYPES


_AUTH_LABELS = {
    AuthType.NONE: "No authentication",
    AuthType.API_KEY: "API key header",
    AuthType.BEARER_TOKEN: "Bearer token",
    AuthType.TOKEN: "Token header",
    AuthType.BASIC: "Basic",
    AuthType.AUTHORIZATION: "Authorization header",
    AuthType.OAUTH2: "OAuth",
    AuthType.OAUTH2_TOKEN_EXCHANGE: "OAuth token exchange",
    AuthType.AWS_SIGV4: "AWS SigV4",
}
_KEY_TYPES = {
    AuthType.API_KEY,
    AuthType.BEARER_TOKEN,
    AuthType.TOKEN,
    AuthType.BASIC,
    AuthType.AUTHORIZATION,
}


class OAuthFlow(StrEnum):
    """The OAuth flow of an `oauth2` upstream."""

    CLIENT_CREDENTIALS = "client_credentials"
    AUTHORIZATION_CODE = "authorization_code"


class ApprovalStatus(StrEnum):
    """The review status of a server."""

    ACTIVE = "active"
    PENDING_REVIEW = "pending_review"
    REJECTED = "rejected"


class Kept(StrEnum):
    """Marker in a form's fields for a stored value to keep.

    It is compared by identity, so that no input can equal it.
    """

    KEPT = "kept"


KEPT = Kept.KEPT


class VariableEntry(TypedDict, total=False):
    """An entry of `env_vars` as sent."""

    name: str
    value: str | None
    scope: str
    description: str | None


class ServerFields(TypedDict, total=False):
    """The fields of a server as sent, all optional. On an update, `None` clears a field."""

    server_id: str | None
    server_name: str | None
    alias: str | None
    description: str | None
    instructions: str | None
    url: str | None
    spec_path: str | None
    transport: Transport | None
    auth_type: AuthType | None
    credentials: Mapping[str, object] | None
    mcp_info: Mapping[str, object] | None
    mcp_access_groups: list[str] | None
    allowed_tools: list[str] | None
    tool_name_to_display_name: Mapping[str, str] | None
    tool_name_to_description: Mapping[str, str] | None
    extra_headers: list[str] | None
    static_headers: Mapping[str, str] | None
    env_vars: list[VariableEntry] | None
    command: str | None
    args: list[str] | None
    env: Mapping[str, str] | None
    authorization_url: str | None
    token_url: str | None
    registration_url: str | None
    oauth2_flow: OAuthFlow | None
    token_validation: Mapping[str, object] | None
    allow_all_keys: bool | None
    available_on_public_internet: bool | None
    delegate_auth_to_upstream: bool | None
    oauth_passthrough: bool | None
    is_byok: bool | None
    byok_description: list[str] | None
    byok_api_key_help_url: str | None
    source_url: str | None
    timeout: float | None
    version: int | None
    keep_credentials: bool | None
    clear_secrets: list[str]


NAME_RULE = "Use 1 to 64 letters, digits, “_” and “.” only."
RESERVED_IDS = frozenset({"all-team-mcpservers", "all-proxy-mcpservers"})
RESERVED_NAMES = frozenset({"mcp", "toolset"})
"""Prefixes of gateway URLs: `/mcp/{server}` and `/toolset/{toolset}/mcp`."""
PORTAL_NAMES = frozenset(
    ".well-known admin credentials keys login oauth playground profile servers static submissions"
    " toolsets ui v0.1 v1".split()
)
"""First parts of the portal's own URLs, which new servers cannot have as a name. `docs` is not one
of them: many servers have that name, and no URL of the gateway is among those of the portal's docs.
"""
STDIO_COMMANDS = frozenset({"npx", "uvx", "python", "python3", "node", "docker", "deno"})
CREDENTIAL_NAMES = frozenset(
    {
        "auth_value",
        "client_id",
        "client_secret",
        "scopes",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "aws_region_name",
        "aws_service_name",
        "aws_role_name",
        "aws_session_name",
        "audience",
        "token_exchange_endpoint",
        "subject_token_type",
    }
)
URL_FIELDS = ("url", "spec_path", "authorization_url", "token_url", "registration_url")
LINK_FIELDS = ("source_url", "byok_api_key_help_url")
_NAME = re.compile(r"[A-Za-z0-9_.]{1,64}", re.ASCII)
_SERVER_ID = re.compile(r"[^\s/\x00-\x1f\x7f]{1,128}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Headers of the connection or of the MCP protocol. A definition must not set them.
_TRANSPORT_HEADERS = frozenset(
    "host content-length content-type transfer-encoding connection keep-alive upgrade te trailer"
    " proxy-authorization proxy-authenticate accept accept-encoding mcp-session-id"
    " mcp-protocol-version mcp-method mcp-name".split()
)
# With these variables, a value can run code in the started process or redirect its traffic or
# files: through the loader, an interpreter, a package manager, a container client, a shell, or a
# TLS library.
_UNSAFE_ENVIRONMENT = re.compile(
    r"(LD_.*|DYLD_.*|GCONV_PATH|GLIBC_.*|LOCPATH|NLSPATH|HOSTALIASES|LOCALDOMAIN|RES_OPTIONS"
    r"|PYTHON.*|PIP_.*|PIPX_.*|UV_.*|VIRTUAL_ENV|CONDA_.*|POETRY_.*"
    r"|NODE_(OPTIONS|PATH|EXTRA_CA_CERTS|TLS_REJECT_UNAUTHORIZED|REPL_EXTERNAL_MODULE|V8_COVERAGE|REDIRECT_WARNINGS)"
    r"|NPM_CONFIG_.*|YARN_.*|PNPM_.*|COREPACK_.*|BUN_.*|DENO_.*"
    r"|RUBYOPT|RUBYLIB|GEM_.*|BUNDLE_.*|PERL5.*|PERLLIB|PHPRC|PHP_INI_SCAN_DIR|LUA_(PATH|CPATH|INIT).*"
    r"|CLASSPATH|JAVA_HOME|_?JAVA_(TOOL_)?OPTIONS|JAVA_OPTS|JDK_JAVA_OPTIONS"
    r"|DOTNET_(STARTUP_HOOKS|ADDITIONAL_DEPS|SHARED_STORE|ROOT.*)|CORECLR_.*|GO(PROXY|FLAGS|ENV|ROOT|PATH|TOOLCHAIN)"
    r"|DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH|TLS.*|CONTENT_TRUST.*|CLI_.*|CUSTOM_HEADERS)"
    r"|BUILDX_.*|COMPOSE_.*|CONTAINER_(HOST|CONNECTION)"
    r"|(PYENV|RBENV|NODENV|JENV|GOENV|ASDF|MISE|VOLTA|FNM|NVM)_.*|RUSTC(_.*)?|RUSTDOC(_.*|FLAGS)?|RUSTFLAGS|RUSTUP_.*"
    r"|CARGO_.*|LESSOPEN|LESSCLOSE|(.*_)?PAGER|EDITOR|VISUAL|BROWSER"
    r"|HOME|USERPROFILE|XDG_.*|PATH|BASH_ENV|BASHOPTS|SHELLOPTS|ZDOTDIR|ENV|IFS|PS4"
    r"|GIT_.*|SSL_.*|OPENSSL_.*|.*_CA_BUNDLE|CURL_HOME|.*_PROXY|PORTAL_.*)",
    re.I,
)


def is_unsafe_variable(name: str) -> bool:
    """Return whether an environment variable can redirect a command's code, files or traffic."""
    return _UNSAFE_ENVIRONMENT.fullmatch(name) is not None


def normalized_name(value: str, field: str) -> str:
    """Return a server name or alias with spaces replaced by `_`. Raises `InvalidRequest`."""
    name = value.strip().replace(" ", "_")
    if not _NAME.fullmatch(name):
        shown = value[:64].encode("ascii", "backslashreplace").decode()
        raise InvalidRequest(
            f"“{shown}” cannot be the {field.replace('_', ' ')}. {NAME_RULE}", field=field
        )
    return name


def is_reserved(name: str) -> bool:
    """Return whether new servers cannot have this name."""
    return name.lower() in RESERVED_NAMES | PORTAL_NAMES


def check_not_reserved(name: str, field: str) -> None:
    """Raise `InvalidRequest` for a name with which URLs of the gateway or the portal begin."""
    if is_reserved(name):
        whose = "gateway URLs" if name.lower() in RESERVED_NAMES else "the portal’s own URLs"
        said = (
            f"The name {name} is reserved, since {whose} begin with /{name}. Choose another name."
        )
        raise InvalidRequest(
            said, code="reserved_id" if field == "server_id" else "invalid_request", field=field
        )


def origin_of(url: str | None) -> str | None:
    """Return `scheme://host[:port]` of a URL without a default port, or None."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port = parts.port
    except ValueError:
        return None
    if not host:
        return None
    host = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{host}" + (f":{port}" if port and port != default else "")


def check_url(value: str, field: str) -> None:
    """Raise `InvalidRequest` for an invalid URL.

    It must be http(s) with a host, without user info, spaces, backslashes and control characters.
    """
    if any(ord(c) < 33 or ord(c) == 127 for c in value) or "\\" in value:
        raise InvalidRequest(
            "The URL contains a space, a backslash or a control character. Remove it.", field=field
        )
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise InvalidRequest("Enter a valid URL, like https://host/path.", field=field) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(
            "The URL must begin with http:// or https:// and contain a host.", field=field
        )
    if "@" in parts.netloc:
        raise InvalidRequest(
            "The URL must not contain a user name or password. Use the credentials instead.",
            field=field,
        )


def check_server_id(server_id: str, *, is_new: bool = True) -> None:
    """Raise `InvalidRequest` for an ID that is invalid or, for a new server, a reserved name."""
    if server_id in RESERVED_IDS:
        raise InvalidRequest(
            f"The ID {server_id} is reserved.", code="reserved_id", field="server_id"
        )
    if is_new:
        check_not_reserved(server_id, "server_id")
    if not _SERVER_ID.fullmatch(server_id):
        raise InvalidRequest(
            "An ID must be 1 to 128 characters without spaces and slashes.", field="server_id"
        )


def check_values(fields: ServerFields) -> None:
    """Check single fields as sent, independent of other fields. Raises `InvalidRequest`."""
    for field in (*URL_FIELDS, *LINK_FIELDS):
        value = fields.get(field)
        if isinstance(value, str) and value and value is not KEPT:
            check_url(value, field)
    check_headers(fields.get("static_headers") or {}, "static_headers")
    for name in fields.get("extra_headers") or ():
        _check_header_name(name, "extra_headers")
    for entry in fields.get("env_vars") or ():
        if not VARIABLE_NAME.fullmatch(entry["name"]):
            raise InvalidRequest(
                "Variable names use letters, digits and “_”, and do not begin with a digit.",
                field="env_vars",
            )
    for name, value in (fields.get("env") or {}).items():
        if not VARIABLE_NAME.fullmatch(name) or is_unsafe_variable(name):
            raise InvalidRequest(
                f"The environment variable {name[:64]} is not allowed for a command, since it can"
                " change which code runs or redirect files and traffic. The operator can pass it"
                " from the portal’s own environment (PORTAL_STDIO_VARIABLES).",
                field="env",
            )
        if "\x00" in value:
            raise InvalidRequest(
                "An environment value must not contain a NUL character.", field="env"
            )


def check_headers(headers: Mapping[str, str], field: str) -> None:
    """Raise `InvalidRequest` for invalid headers (RFC 9110, sections 5.1 and 5.5).

    Headers of the connection itself are not allowed.
    """
    seen: set[str] = set()
    for name, value in headers.items():
        _check_header_name(name, field)
        if name.lower() in seen:
            raise InvalidRequest("The same header is set twice.", field=field)
        seen.add(name.lower())
        check_sendable(value, field)


def check_sendable(value: str, field: str) -> None:
    """Raise `InvalidRequest` for an invalid header value (RFC 9110, section 5.5)."""
    if _UNSENDABLE.search(value):
        raise InvalidRequest(
            "The value contains a line break or control character. Remove it.", field=field
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            "The value contains an invalid character. Enter it again.", field=field
        ) from None


def check_definition(
    *,
    transport: Transport,
    url: str | None,
    spec_path: str | None,
    command: str | None,
    has_args: bool,
    stdio_enabled: bool,
    stdio_commands: Collection[str],
    no_sandbox: Callable[[], str],
) -> None:
    """Check a complete definition as it would be after the change.

    `no_sandbox` returns why commands cannot run on this host, or "". It is called only for a
    command. Raises `InvalidInput` (422) for missing fields, `InvalidRequest` (400) if the command
    is not allowed.
    """
    if transport is Transport.STDIO:
        if not command:
            raise InvalidInput("A stdio server requires a command.", field="command")
        if not has_args:
            raise InvalidInput("A stdio server requires arguments.", field="args")
        _check_command(command, stdio_enabled, stdio_commands)
        if refusal := no_sandbox():
            raise InvalidRequest(refusal, code="stdio_not_allowed", field="transport")
    elif not url and not spec_path:
        raise InvalidInput(
            f"A server with the transport {transport} requires a URL or an OpenAPI document.",
            field="url",
        )


def _check_command(command: str, enabled: bool, allowed: Collection[str]) -> None:
    if command not in allowed:
        names = ", ".join(sorted(allowed))
        raise InvalidRequest(
            f"The command must be one of these, without a path: {names}. The operator can allow"
            " others.",
            code="stdio_not_allowed",
            field="command",
        )
    if not enabled:
        raise InvalidRequest(
            "The transport stdio is disabled on this portal. The operator can enable it with"
            " PORTAL_ENABLE_STDIO=true.",
            code="stdio_not_allowed",
            field="transport",
        )


def _check_header_name(name: str, field: str) -> None:
    if not _HEADER_NAME.fullmatch(name) or name.lower() in _TRANSPORT_HEADERS:
        raise InvalidRequest(
            "A header name is not valid. Use letters, digits and “-”. Headers of the connection"
            " are not allowed.",
            field=field,
        )
