"""The operator's settings, read once from the environment."""

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Words = Annotated[tuple[str, ...], NoDecode]


class BadSettings(Exception):
    """Invalid settings, which prevent the start. The text has one line per error."""


_ROLES = Literal["proxy_admin", "proxy_admin_viewer", "internal_user", "internal_user_viewer"]


class ProviderSettings(BaseModel):
    """An OpenID provider in `PORTAL_SIGN_IN_PROVIDERS`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    label: str = ""
    issuer: str
    client_id: str = Field(min_length=1)
    client_secret: SecretStr = SecretStr("")
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    email_domains: tuple[str, ...] = ()
    groups_claim: str = "groups"
    roles: dict[str, _ROLES] = Field(default_factory=dict)
    teams: dict[str, str] = Field(default_factory=dict)
    default_role: _ROLES | None = "internal_user"
    link_by_email: bool = False

    @field_validator("issuer")
    @classmethod
    def _secure(cls, value: str) -> str:
        parts = urlsplit(value)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        is_secure = parts.scheme == "https" or (parts.scheme == "http" and local)
        if not parts.hostname or not is_secure:
            raise ValueError("issuer must be an https URL")
        return value


class Settings(BaseSettings):
    """The settings. The environment variable of a field is `PORTAL_` and its name in uppercase."""

    model_config = SettingsConfigDict(
        env_prefix="PORTAL_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    database_url: str = Field(
        "sqlite:///var/portal.db", description="Database; SQLite means embedded mode."
    )
    redis_url: SecretStr | None = Field(
        None,
        description=(
            "Redis (`redis://`, `rediss://`, `unix://`) for rate limits shared by all processes."
        ),
    )
    secret_key: SecretStr = Field(
        description="Signs CSRF tokens, 32 characters or more. Embedded mode generates one."
    )
    encryption_keys: SecretStr = Field(
        description=(
            "Key ring `id:base64key,…`, 32 bytes each, newest first. Embedded mode generates one."
        )
    )
    public_url: str = Field(
        "http://127.0.0.1:8000", description="URL at which users and clients reach the portal."
    )
    config: Path | None = Field(
        None, description="YAML file with `mcp_servers:` and `general_settings:`."
    )
    trusted_proxies: Words = Field(
        (), description="CIDRs of proxies whose X-Forwarded-For and -Proto are trusted."
    )
    bootstrap_admin_email: str = Field(
        "admin@portal.local", description="Email of the first Admin."
    )
    bootstrap_admin_password: SecretStr | None = Field(
        None, description="Password of the first Admin; generated and printed once if not set."
    )
    bootstrap_api_key: SecretStr | None = Field(
        None, description="API key of the first Admin, used at the first start only."
    )
    allow_private_upstreams: bool | Words | None = Field(
        None,
        description=(
            "`true`, `false` or CIDRs of private ranges allowed for upstreams; true in embedded"
            " mode."
        ),
    )
    enable_stdio: bool = Field(False, description="Allow servers that are commands on this host.")
    stdio_commands: Words = Field(
        (), description="Additional program names allowed for stdio servers."
    )
    stdio_user: str | None = Field(
        None, description="User that runs commands if the portal runs as root; `nobody` by default."
    )
    stdio_paths: Words = Field(
        (), description="Additional files and folders that commands may read."
    )
    stdio_variables: Words = Field(
        (), description="Environment variables of the portal that are passed to commands."
    )
    stdio_homes: Path | None = Field(
        None,
        description=(
            "Folder for the home folders of commands; by default `stdio` next to an SQLite"
            " database."
        ),
    )
    gateway_url: str | None = Field(
        None, description="Gateway URL in registry entries and client snippets."
    )
    gateway_origins: Words = Field(
        (), description="Origins of web apps that may use the gateway from a browser."
    )
    metrics: bool = Field(False, description="Enable /metrics, see docs/observability.md.")
    worker_metrics: str | None = Field(
        None,
        description=("Address such as `127.0.0.1:9464` where `portal worker` serves its metrics."),
    )
    log_format: Literal["text", "json"] | None = Field(
        None, description="`text` or `json`; by default text on a terminal and JSON otherwise."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum log level: `debug`, `info`, `warning` or `error`."
    )
    password_sign_in: bool = Field(True, description="Allow sign-in with a password.")
    sign_in_providers: Annotated[tuple[ProviderSettings, ...], NoDecode] = Field(
        (), description="OpenID providers for sign-in: a JSON list, see docs/sso.md."
    )
    write_only_globals: bool = Field(
        False,
        description=(
            "Also hide url, spec_path, OAuth URLs, args, header, env and global values from Admins."
        ),
    )
    session_idle_minutes: int = Field(
        60, ge=5, le=1440, description="Minutes of inactivity after which a session ends."
    )
    session_max_hours: int = Field(
        12, ge=1, le=720, description="Hours after which a session ends."
    )
    cheap_hashing: bool = Field(False, description="Fast password hashes, for tests only.")

    @field_validator(
        "trusted_proxies",
        "stdio_commands",
        "stdio_paths",
        "stdio_variables",
        "gateway_origins",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("allow_private_upstreams", mode="before")
    @classmethod
    def _truth_or_ranges(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        word = value.strip().lower()
        if word in ("true", "1", "yes", "on", "false", "0", "no", "off", ""):
            return None if not word else word in ("true", "1", "yes", "on")
        ranges = tuple(part.strip() for part in value.split(",") if part.strip())
        _check_ranges(ranges)
        return ranges

    @field_validator("sign_in_providers", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError("must be a JSON list of objects") from None

    @field_validator("sign_in_providers")
    @classmethod
    def _named_once(cls, value: tuple[ProviderSettings, ...]) -> tuple[ProviderSettings, ...]:
        names = [provider.name for provider in value]
        if len(set(names)) < len(names) or {"logout", "mcp"} & set(names):
            raise ValueError("each provider needs a unique name, other than logout and mcp")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _ranges(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _check_ranges(value)
        return value

    @field_validator("stdio_paths")
    @classmethod
    def _absolute(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            if not path.startswith("/") or not Path(path).exists():
                raise ValueError("must be absolute paths that exist")
        return value

    @field_validator("stdio_variables")
    @classmethod
    def _not_ours(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(name.upper().startswith("PORTAL_") for name in value):
            raise ValueError("must not contain settings of the portal")
        return value

    @field_validator("gateway_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_is_origin(origin) for origin in value):
            raise ValueError(
                "must be a comma-separated list of origins as browsers send them, such as"
                " https://app.example.com"
            )
        return value

    @field_validator("public_url", "gateway_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        has_host = parts.scheme in ("http", "https") and bool(parts.hostname)
        if not has_host or parts.query or parts.fragment:
            raise ValueError("must be like https://portal.example.com")
        return value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value.startswith("postgres://"):
            value = "postgresql://" + value.removeprefix("postgres://")
        if value.startswith("postgresql://"):
            value = "postgresql+psycopg://" + value.removeprefix("postgresql://")
        if not value.startswith(("sqlite:", "postgresql+psycopg:")):
            raise ValueError("must begin with sqlite:/// or postgresql://")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            is_valid = bool(parts.hostname) and parts.scheme in ("redis", "rediss")
            if parts.scheme == "unix":
                is_valid = bool(parts.path)
            if not is_valid:
                raise ValueError(
                    "must be like redis://host:6379/0, rediss://… or unix:///path/of/socket"
                )
        return value

    @field_validator("worker_metrics")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\w.:\[\]-]+:\d{1,5}", value):
            raise ValueError("must be like 127.0.0.1:9464")
        return value

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 32:
            raise ValueError("must have 32 characters or more")
        return value

    @field_validator("encryption_keys")
    @classmethod
    def _key_ring(cls, value: SecretStr) -> SecretStr:
        parse_key_ring(value.get_secret_value())
        return value

    @field_validator("bootstrap_api_key")
    @classmethod
    def _api_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"sk-[\x21-\x7e]{17,}", value.get_secret_value()):
            raise ValueError("must begin with sk- and have 20 characters or more")
        return value

    @property
    def embedded(self) -> bool:
        """Return whether the portal runs in embedded mode, with SQLite."""
        return self.database_url.startswith("sqlite:")

    @property
    def private_upstreams(self) -> bool | tuple[str, ...]:
        """Return the private ranges that are allowed for upstreams."""
        return (
            self.embedded if self.allow_private_upstreams is None else self.allow_private_upstreams
        )

    @property
    def https(self) -> bool:
        """Return whether the public URL is https."""
        return self.public_url.startswith("https://")

    @property
    def sign_in_facts(self) -> list[str]:
        """Return lines about sign-in and the redirect URIs to register."""
        return [
            f"public URL: {self.public_url}",
            f"password sign-in: {'on' if self.password_sign_in else 'off'}",
            *(
                f"callback to register at {provider.label or provider.name}: "
                f"{self.public_url}/login/{provider.name}/callback"
                for provider in self.sign_in_providers
            ),
            f"callback to register for MCP servers: {self.public_url}/oauth/callback",
        ]


def parse_key_ring(text: str) -> dict[str, bytes]:
    """Return the key ring in `id:base64key,…`, newest first. Raises `ValueError` without a key."""
    ring: dict[str, bytes] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key_id, _, encoded = part.partition(":")
        try:
            key = base64.b64decode(
                encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True
            )
        except (binascii.Error, ValueError):
            key = b""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", key_id) or len(key) != 32 or key_id in ring:
            raise ValueError(
                "must be a comma-separated list of id:base64key with 32-byte keys and unique IDs"
            )
        ring[key_id] = key
    if not ring:
        raise ValueError("must contain at least one key")
    return ring


def read_settings(environment: Mapping[str, str], **overrides: Any) -> Settings:
    """Return the settings in `environment`. Raises `BadSettings`, which contains no values."""
    known = {f"PORTAL_{name.upper()}": name for name in Settings.model_fields}
    given: dict[str, Any] = {
        known[name.upper()]: value
        for name, value in environment.items()
        if name.upper() in known and value != ""
    }
    try:
        return Settings(**{**given, **overrides}, _env_file=None)  # type: ignore[call-arg]
    except ValidationError as error:
        lines = [
            f"PORTAL_{str(fault['loc'][0]).upper()}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise BadSettings("\n".join(dict.fromkeys(lines))) from None


def _is_origin(text: str) -> bool:
    """Return whether `text` is an origin in the form that browsers send, without default port."""
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+", text):
        return False
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    is_default = port == {"http": 80, "https": 443}.get(parts.scheme)
    return bool(parts.hostname) and (port is None or not is_default) and not text.endswith(":")


def _check_ranges(ranges: tuple[str, ...]) -> None:
    for text in ranges:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(
                "must be a comma-separated list of CIDR ranges such as 10.0.0.0/8"
            ) from None
