"""The words for MCP servers and the rules a definition must meet, whoever sends it and however."""

import re
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import TypedDict
from urllib.parse import urlsplit

from portal.domain.errors import InvalidInput, InvalidRequest
from portal.domain.variables import NAME as VARIABLE_NAME


class Transport(StrEnum):
    """How an upstream is reached."""

    SSE = "sse"
    HTTP = "http"
    STDIO = "stdio"


class AuthType(StrEnum):
    """How the portal authenticates to an upstream."""

    NONE = "none"
    API_KEY = "api_key"
    BEARER_TOKEN = "bearer_token"  # noqa: S105 - a word of the wire format
    TOKEN = "token"  # noqa: S105 - a word of the wire format
    BASIC = "basic"
    AUTHORIZATION = "authorization"
    OAUTH2 = "oauth2"
    OAUTH2_TOKEN_EXCHANGE = "oauth2_token_exchange"  # noqa: S105 - a word of the wire format
    AWS_SIGV4 = "aws_sigv4"

    @property
    def label(self) -> str:
        """The type as people read it."""
        return _AUTH_LABELS[self]

    @property
    def takes_a_key(self) -> bool:
        """Whether one secret value is sent, the shared one or each person's own."""
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
    """Which OAuth flow reaches an `oauth2` upstream."""

    CLIENT_CREDENTIALS = "client_credentials"
    AUTHORIZATION_CODE = "authorization_code"


class ApprovalStatus(StrEnum):
    """Where a server stands in review."""

    ACTIVE = "active"
    PENDING_REVIEW = "pending_review"
    REJECTED = "rejected"


class Kept(StrEnum):
    """Stands in a form's fields for a stored value that stays. Known by identity: no text that is
    sent equals it."""

    KEPT = "kept"


KEPT = Kept.KEPT


class VariableEntry(TypedDict, total=False):
    """One entry of `env_vars`, as sent."""

    name: str
    value: str | None
    scope: str
    description: str | None


class ServerFields(TypedDict, total=False):
    """What may be sent of a server, each field optional: on an update only what is there changes,
    `None` clears."""

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
"""What addresses of the gateway begin with: `/mcp/{server}` and `/toolset/{toolset}/mcp`."""
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
# Headers that belong to the connection or to the MCP protocol itself: a definition that sets one
# breaks the transport.
_TRANSPORT_HEADERS = frozenset(
    "host content-length content-type transfer-encoding connection keep-alive upgrade te trailer"
    " proxy-authorization proxy-authenticate accept accept-encoding mcp-session-id"
    " mcp-protocol-version mcp-method mcp-name".split()
)
# A variable of these names lets its value run code in, or redirect the traffic or the files of, the
# process that is started: by the loader, an interpreter, a package manager, a container client, a
# shell, or a TLS library.
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
    """Whether a variable of a command's environment decides which code it runs, or where its files
    and traffic go."""
    return _UNSAFE_ENVIRONMENT.fullmatch(name) is not None


def normalized_name(value: str, field: str) -> str:
    """A server name or alias with spaces made `_`; raises `InvalidRequest` naming the field and the
    bad value."""
    name = value.strip().replace(" ", "_")
    if not _NAME.fullmatch(name):
        shown = value[:64].encode("ascii", "backslashreplace").decode()
        raise InvalidRequest(
            f"“{shown}” cannot be the {field.replace('_', ' ')}. {NAME_RULE}", field=field
        )
    return name


def check_not_reserved(name: str, field: str) -> None:
    """Raise `InvalidRequest` for a name that addresses of the gateway begin with."""
    if name.lower() in RESERVED_NAMES:
        said = (
            f"A server cannot be called {name}, as addresses of the gateway begin with /{name}."
            " Choose another name."
        )
        raise InvalidRequest(
            said, code="reserved_id" if field == "server_id" else "invalid_request", field=field
        )


def origin_of(url: str | None) -> str | None:
    """`scheme://host[:port]` of a URL without a default port, or None where it has none."""
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
    """A URL must be http(s) with a host and without user-info, fragment, backslash or control
    character."""
    if any(ord(c) < 33 or ord(c) == 127 for c in value) or "\\" in value:
        raise InvalidRequest(
            "The URL holds a space, a backslash or a control character. Remove it.", field=field
        )
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise InvalidRequest(
            "This is not a URL. Write it as https://host/path.", field=field
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(
            "The URL must begin with http:// or https:// and name a host.", field=field
        )
    if "@" in parts.netloc:
        raise InvalidRequest(
            "The URL may not hold a user name or password. Use the credentials instead.",
            field=field,
        )


def check_server_id(server_id: str) -> None:
    """An id is free text without spaces, slashes and control characters, and not a reserved one."""
    if server_id in RESERVED_IDS:
        raise InvalidRequest(
            f"The id {server_id} is reserved.", code="reserved_id", field="server_id"
        )
    check_not_reserved(server_id, "server_id")
    if not _SERVER_ID.fullmatch(server_id):
        raise InvalidRequest(
            "An id has 1 to 128 characters without spaces and slashes.", field="server_id"
        )


def check_values(fields: ServerFields) -> None:
    """Rules of single fields as they were sent, whatever the rest of the row says."""
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
                "A variable’s name has letters, digits and “_”, and does not begin with a digit.",
                field="env_vars",
            )
    for name, value in (fields.get("env") or {}).items():
        if not VARIABLE_NAME.fullmatch(name) or is_unsafe_variable(name):
            raise InvalidRequest(
                f"The environment variable {name[:64]} may not be set for a command: it can decide"
                " which code runs, or where files and traffic go. The operator can pass it on from"
                " the portal’s own environment (PORTAL_STDIO_VARIABLES).",
                field="env",
            )
        if "\x00" in value:
            raise InvalidRequest("An environment value may not hold a NUL character.", field="env")


def check_headers(headers: Mapping[str, str], field: str) -> None:
    """Names are tokens (RFC 9110, 5.1), values one line; headers of the connection itself are
    refused."""
    seen: set[str] = set()
    for name, value in headers.items():
        _check_header_name(name, field)
        if name.lower() in seen:
            raise InvalidRequest("A header is given twice.", field=field)
        seen.add(name.lower())
        check_sendable(value, field)


def check_sendable(value: str, field: str) -> None:
    """A value that goes into a header is one line of printable text (RFC 9110, 5.5)."""
    if _UNSENDABLE.search(value):
        raise InvalidRequest(
            "The value holds a line break or control character. Remove it.", field=field
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            "The value holds a broken character. Type it again.", field=field
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
    """What a whole definition must have, judged on the row as it would be after the change.

    `no_sandbox` answers why commands cannot run on this host, blank where they can; it is asked
    only for a command. Raises `InvalidInput` (422) where a transport lacks its fields,
    `InvalidRequest` (400) where a command is refused.
    """
    if transport is Transport.STDIO:
        if not command:
            raise InvalidInput("A stdio server needs a command.", field="command")
        if not has_args:
            raise InvalidInput("A stdio server needs its arguments.", field="args")
        _check_command(command, stdio_enabled, stdio_commands)
        if refusal := no_sandbox():
            raise InvalidRequest(refusal, code="stdio_not_allowed", field="transport")
    elif not url and not spec_path:
        raise InvalidInput(
            f"A server with the transport {transport} needs a URL or an OpenAPI document.",
            field="url",
        )


def _check_command(command: str, enabled: bool, allowed: Collection[str]) -> None:
    if command not in allowed:
        names = ", ".join(sorted(allowed))
        raise InvalidRequest(
            f"The command must be a bare program name, one of: {names}. The operator can add"
            " others.",
            code="stdio_not_allowed",
            field="command",
        )
    if not enabled:
        raise InvalidRequest(
            "Servers with the transport stdio are switched off here. The operator can set"
            " PORTAL_ENABLE_STDIO=true.",
            code="stdio_not_allowed",
            field="transport",
        )


def _check_header_name(name: str, field: str) -> None:
    if not _HEADER_NAME.fullmatch(name) or name.lower() in _TRANSPORT_HEADERS:
        raise InvalidRequest(
            "A header’s name is not usable here. Use letters, digits and “-”; headers of the"
            " connection are refused.",
            field=field,
        )
