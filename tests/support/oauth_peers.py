"""The real OAuth peers that the tests talk to, as a pytest plugin beside `tests.support.peers`.

A certified OpenID provider, an MCP server behind OAuth on the official SDK, and two servers of our
own for what honest ones never do: one that forges id_tokens, and one that records and answers what
it is told.
"""

import contextlib
import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.factories import make_server
from tests.support.oauth.forging import ForgingProvider, forging_server
from tests.support.oauth.recording import RecordingServer, recording_server
from tests.support.peers import (
    NODE_MODULES,
    ROOT,
    TRUST,
    bare_environment,
    free_port,
    start_process,
    unavailable,
)

OIDC_PROGRAM = ROOT / "tests" / "programs" / "oidc_provider.mjs"
Claims = Mapping[str, Any]
DEFAULT_ACCOUNTS: Mapping[str, Claims] = {
    "ada": {
        "email": "ada@example.com",
        "email_verified": True,
        "name": "Ada",
        "groups": ["mcp-admins", "staff"],
    },
    "bob": {"email": "bob@example.com", "email_verified": True, "name": "Bob", "groups": ["staff"]},
    "eve": {"email": "eve@example.com", "email_verified": False, "name": "Eve", "groups": []},
}


@dataclass(frozen=True)
class OidcProvider:
    """A running OpenID provider, and the one client that it knows."""

    issuer: str
    client_id: str
    client_secret: str
    accounts_file: Path

    def set_account(self, login: str, **claims: Any) -> None:
        """Let `login` have exactly these claims from its next sign-in on; `sub` is `sub-of-<login>`
        unless given."""
        self._write({**self._accounts(), login: claims})

    def remove_account(self, login: str) -> None:
        """Let nobody sign in as `login` any more."""
        self._write({name: claims for name, claims in self._accounts().items() if name != login})

    def _accounts(self) -> dict[str, Claims]:
        accounts: dict[str, Claims] = json.loads(self.accounts_file.read_text(encoding="utf-8"))
        return accounts

    def _write(self, accounts: Mapping[str, Claims]) -> None:
        draft = self.accounts_file.with_suffix(".new")
        draft.write_text(json.dumps(accounts), encoding="utf-8")
        draft.replace(self.accounts_file)  # in one step: the provider may be reading


@dataclass(frozen=True)
class OidcOptions:
    """How a provider behaves; `started_oidc_provider` tells what each means."""

    redirect_uris: Sequence[str]
    post_logout_redirect_uris: Sequence[str] = ()
    login: str | None = None
    host: str = "127.0.0.1"
    client_auth: str = "client_secret_basic"
    id_token_seconds: int = 600
    session_seconds: int = 3600
    code_seconds: int = 60
    claims_in_id_token: bool = True
    end_session: bool = True
    more_claims: Sequence[str] = ()


@contextlib.contextmanager
def started_oidc_provider(
    options: OidcOptions, accounts: Mapping[str, Claims] = DEFAULT_ACCOUNTS
) -> Iterator[OidcProvider]:
    """Run npm's oidc-provider, which demands PKCE, for the block.

    With `login` it answers each authorization at once as that account; else it shows a form with
    the field `login` and the buttons *Sign in* and *Cancel*. `host="localhost"` makes it another
    site than a portal on 127.0.0.1. Without `claims_in_id_token` the claims are at userinfo only,
    without `end_session` nobody can sign out there. `more_claims` names claims beyond e-mail, name
    and groups that come with every sign-in. Times are in seconds.
    """
    node = shutil.which("node")
    if node is None or not (NODE_MODULES / "oidc-provider").exists():
        unavailable("The OpenID provider oidc-provider", "run `make peers`")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="portal-peer-") as folder:
        provider = OidcProvider(
            f"http://{options.host}:{port}",
            "portal",
            f"SECRET-{secrets.token_hex(16)}",
            Path(folder) / "accounts.json",
        )
        provider.accounts_file.write_text(json.dumps(accounts), encoding="utf-8")
        config = Path(folder) / "config.json"
        settings = {
            **asdict(options),
            "issuer": provider.issuer,
            "port": port,
            "client_id": provider.client_id,
            "client_secret": provider.client_secret,
            "node_modules": f"{NODE_MODULES.parent}/",
        }
        config.write_text(json.dumps(settings), encoding="utf-8")
        argv: list[str | Path] = [
            node,
            "--no-warnings",
            OIDC_PROGRAM,
            config,
            provider.accounts_file,
        ]
        discovery = f"{provider.issuer}/.well-known/openid-configuration"
        with start_process(argv, bare_environment(), lambda: _answers(discovery)):
            yield provider


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(url, timeout=5, verify=TRUST).status_code == 200
    return False


@pytest.fixture
def oidc_provider() -> Iterator[Callable[..., OidcProvider]]:
    """`oidc_provider(redirect_uris=[…], accounts={…}, …)` starts one with `OidcOptions`; it ends
    with the test."""
    with contextlib.ExitStack() as running:

        def start(
            *, accounts: Mapping[str, Claims] = DEFAULT_ACCOUNTS, **options: Any
        ) -> OidcProvider:
            return running.enter_context(started_oidc_provider(OidcOptions(**options), accounts))

        yield start


@pytest.fixture
def forging_provider() -> Iterator[ForgingProvider]:
    """An OpenID provider that can be told to lie, in this process."""
    with forging_server() as provider:
        yield provider


@pytest.fixture
def recording_as() -> Iterator[RecordingServer]:
    """An authorization server and MCP endpoint that records and answers as told, in this
    process."""
    with recording_server() as server:
        yield server


@dataclass(frozen=True)
class Counters:
    """How often each thing happened since the last reset; the `live_` ones and `clients` are what
    there is now."""

    authorize: int = 0
    register: int = 0
    client_documents: int = 0
    code_grants: int = 0
    refresh_grants: int = 0
    refused_grants: int = 0
    reused_refresh: int = 0
    revocations: int = 0
    revoked_grants: int = 0
    unauthorized: int = 0
    insufficient_scope: int = 0
    tool_calls: int = 0
    live_access: int = 0
    live_refresh: int = 0
    clients: int = 0


@dataclass(frozen=True)
class ProtectedServer:
    """An MCP server behind OAuth, in a process of its own."""

    issuer: str

    @property
    def url(self) -> str:
        """The MCP endpoint, which is the protected resource."""
        return f"{self.issuer}/mcp"

    def configure(self, **behavior: Any) -> None:
        """Change the named fields of `tests.programs.authority.Behavior`; the others stay."""
        self._ask("settings", behavior)

    def add_client(
        self, client_id: str, client_secret: str | None, *, redirect_uris: Sequence[str]
    ) -> None:
        """Register a client by hand; without a secret it is a public one."""
        self._ask(
            "clients",
            {
                "client_id": client_id,
                "client_secret": client_secret,
                "redirect_uris": list(redirect_uris),
            },
        )

    def counters(self) -> Counters:
        """Return what happened so far."""
        return Counters(**self._ask("counters"))

    def expire_access_tokens(self) -> None:
        """Let every access token be expired now; refresh tokens live on."""
        self._ask("expire")

    def revoke_all(self) -> None:
        """End every grant on this side, as an administrator there may."""
        self._ask("revoke")

    def reset(self) -> None:
        """Forget all clients, tokens, counts and settings."""
        self._ask("reset")

    def _ask(self, action: str, body: object = None) -> dict[str, int]:
        answer = httpx2.post(f"{self.issuer}/_peer/{action}", json=body, timeout=10, verify=TRUST)
        answer.raise_for_status()
        counts: dict[str, int] = answer.json()
        return counts


@contextlib.contextmanager
def started_protected_mcp_server() -> Iterator[ProtectedServer]:
    """Run another one for the block."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.programs.protected_mcp_server", "--port", str(port)]
    with start_process(argv, bare_environment(), port):
        yield ProtectedServer(f"http://127.0.0.1:{port}")


@pytest.fixture(scope="session")
def running_protected_mcp_server() -> Iterator[ProtectedServer]:
    """The one process behind `protected_mcp_server`, as the last test left it."""
    with started_protected_mcp_server() as server:
        yield server


@pytest.fixture
def protected_mcp_server(running_protected_mcp_server: ProtectedServer) -> ProtectedServer:
    """An MCP server behind OAuth, on the official Python SDK, as new."""
    running_protected_mcp_server.reset()
    return running_protected_mcp_server


@pytest.fixture
def guarded(write: Callable[[], Any], protected_mcp_server: ProtectedServer) -> str:
    """That server in the catalog, for everybody once they are connected; it spends each refresh
    token once."""
    with write() as session:
        return make_server(
            session,
            "guarded",
            url=protected_mcp_server.url,
            auth_type="oauth2",
            allow_all_keys=True,
        )
