"""Keys and their rotation as an operator has them: real processes, killed at any moment."""

import base64
import json
import sqlite3
from pathlib import Path

import pytest
import requests

from portal.services.secrets import bindings
from portal.store.vault import Vault
from tests.cli.test_cli import ADMIN, PORTAL, Host
from tests.support.peers import free_port, start_process

K1, K2 = (f"k{n}:{base64.b64encode(bytes([n]) * 32).decode()}" for n in (1, 2))
MANY = 3_000
URL = "http://127.0.0.1:9/SECRET-path"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine whose operator brings the keys."""
    host = Host(tmp_path)
    host.environment |= {"PORTAL_SECRET_KEY": "s" * 40, "PORTAL_ENCRYPTION_KEYS": K1}
    return host


def import_server(host: Host) -> None:
    """One server, with one secret under the old key."""
    (host.folder / "s.json").write_text(
        json.dumps({"mcpServers": {"s": {"type": "http", "url": URL}}})
    )
    imported = host.portal("catalog", "import", "s.json")
    assert imported.returncode == 0, imported.stderr


def url_of_the_server(address: str) -> object:
    """The address of the server, which is stored sealed, as a full Admin reads it."""
    [server] = requests.get(f"{address}/v1/mcp/server", headers=ADMIN, timeout=10).json()
    return server["url"]


def plant_many(host: Host) -> None:
    """Documents of many people that wait for their import, sealed under the old key."""
    vault = Vault({"k1": bytes([1]) * 32})
    names = [f"u{n}" for n in range(MANY)]
    with sqlite3.connect(host.folder / "var" / "portal.db") as connection:
        connection.executemany(
            "insert into users (user_id, role, must_change_password, is_active, theme, created_at)"
            " values (?, 'internal_user', 0, 1, 'auto', '2026-01-01 00:00:00.000000')",
            [(name,) for name in names],
        )
        connection.executemany(
            "insert into import_drafts (user_id, sealed, created_at) values (?, ?, '2026-01-01"
            " 00:00:00.000000')",
            [(name, vault.seal("{}", bindings.of_import(name))) for name in names],
        )


def moved(host: Host) -> int:
    """How many of them are under the new key."""
    return int(
        str(
            host.read(
                "select count(*) from import_drafts where substr(sealed, 1, 4) = x'01026b32'"
            )[0][0]
        )
    )


def test_a_rotation_that_is_killed_goes_on_and_the_old_key_retires(host: Host) -> None:
    """R-SEC-11, R-SEC-12: kill -9 in the middle, while the portal serves; then the new key
    alone."""
    both = {"PORTAL_ENCRYPTION_KEYS": f"{K2},{K1}"}
    import_server(host)
    with host.serving(**both) as (address, _):
        plant_many(host)
        rotate = [*PORTAL, "keys", "rotate"]
        with start_process(
            rotate, host.environment | both, lambda: moved(host) > 0, cwd=host.folder
        ) as rotating:
            rotating.process.kill()
            rotating.process.wait(30)
        assert 0 < moved(host) < MANY, "it was killed in the middle"
        again = host.portal("keys", "rotate", **both)
        assert again.returncode == 0, again.stderr
        assert url_of_the_server(address) == URL
    status = host.portal("keys", "status", "--verify", PORTAL_ENCRYPTION_KEYS=K2)
    assert status.returncode == 0, status.stdout
    # The server's address in both forms, the documents, and a key of the audit chain for each key
    # of the ring.
    assert status.stdout.startswith(f"k2  newest, {MANY + 4} values: ")
    assert host.portal("audit", "verify", PORTAL_ENCRYPTION_KEYS=K2).returncode == 0


def test_serving_warns_of_a_key_that_is_missing_and_refuses_a_ring_that_opens_nothing(
    host: Host,
) -> None:
    """R-SEC-09."""
    import_server(host)
    refused = host.portal("serve", "--port", str(free_port()), PORTAL_ENCRYPTION_KEYS=K2)
    assert refused.returncode == 1
    assert "Warning: k1  3 values cannot be decrypted" in refused.stderr
    assert "Add the keys that the secrets need" in refused.stderr
    another = {"PORTAL_ENCRYPTION_KEYS": f"k1:{K2.partition(':')[2]}"}
    assert "Add the keys that the secrets need" in host.portal("worker", **another).stderr
    assert host.portal("worker", "--once", "--without-secrets", **another).returncode == 0
