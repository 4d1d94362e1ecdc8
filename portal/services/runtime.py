"""What every use case of this process shares, hung on the database session so that nobody holds it
globally."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from argon2 import PasswordHasher
from sqlalchemy.orm import Session

from portal.domain.sign_in import SignInProvider
from portal.store.vault import Vault
from portal.upstream.mcp_client import McpClient
from portal.upstream.oauth_client import OAuthClient
from portal.upstream.openid import OpenIdClient
from portal.upstream.sandbox import Sandbox


@dataclass(frozen=True)
class Runtime:
    """The vault, the way to upstreams, and the operator's settings that use cases depend on."""

    vault: Vault
    mcp: McpClient
    oauth: OAuthClient
    openid: OpenIdClient
    providers: Mapping[str, SignInProvider]
    hasher: PasswordHasher
    public_url: str
    gateway_url: str
    stdio_enabled: bool
    stdio_commands: frozenset[str]
    sandbox: Sandbox
    write_only_globals: bool
    session_idle_minutes: int
    session_max_hours: int

    @cached_property
    def chain_keys(self) -> Mapping[str, bytes]:
        """The keys of the audit's chain, by the ids of those in the ring that they come from,
        newest first."""
        return self.vault.keys_for("audit chain")

    @cached_property
    def decoy_hash(self) -> str:
        """A hash nobody knows the password of, so that an unknown e-mail takes as long as a wrong
        password."""
        return self.hasher.hash("nobody has this password")


def runtime_of(session: Session) -> Runtime:
    """The runtime that `session` belongs to."""
    runtime = session.info["runtime"]
    assert isinstance(runtime, Runtime)
    return runtime
