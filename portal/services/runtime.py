"""Process-wide dependencies, carried by the database session."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from argon2 import PasswordHasher
from sqlalchemy.orm import Session

from portal.domain.sign_in import SignInProvider
from portal.store.vault import Vault
from portal.upstream.mcp_client import UpstreamClient
from portal.upstream.oauth_client import OAuthClient
from portal.upstream.openid import OpenIdClient
from portal.upstream.sandbox import Sandbox


@dataclass(frozen=True)
class Runtime:
    """The vault, the clients for upstreams, and the operator's settings that use cases need."""

    vault: Vault
    mcp: UpstreamClient
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
    call_log_days: int

    @cached_property
    def chain_keys(self) -> Mapping[str, bytes]:
        """The keys of the audit chain by the id of their key in the ring, newest first."""
        return self.vault.keys_for("audit chain")

    @cached_property
    def decoy_hash(self) -> str:
        """A hash of an unknown password, so that checks of unknown emails take equally long."""
        return self.hasher.hash("nobody has this password")


def runtime_of(session: Session) -> Runtime:
    """Return the runtime that `session` belongs to."""
    runtime = session.info["runtime"]
    assert isinstance(runtime, Runtime)
    return runtime
