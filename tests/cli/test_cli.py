"""The command line as an operator uses it: real processes in an empty folder, with nothing of ours
around them."""

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from tests.support.peers import (
    Finished,
    StartedProcess,
    accepts,
    bare_environment,
    free_port,
    run,
    start_process,
)

PORTAL = (sys.executable, "-m", "portal.cli")
ADMIN_KEY = "sk-bootstrap-key-of-the-tests"
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
SECOND_START_SECONDS = 30.0
ORPHANS_GONE_SECONDS = 40.0


class Host:
    """An empty folder on a machine where somebody types commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = bare_environment(
            PORTAL_CHEAP_HASHING="true", PORTAL_BOOTSTRAP_API_KEY=ADMIN_KEY, PYTHONUNBUFFERED="1"
        )

    def portal(self, *arguments: str, **environment: str) -> Finished:
        """Run a command to its end."""
        return run([*PORTAL, *arguments], env={**self.environment, **environment}, cwd=self.folder)

    @contextmanager
    def serving(
        self, *, command: str = "serve", seconds: float = 30.0, **environment: str
    ) -> Iterator[tuple[str, StartedProcess]]:
        """Run `portal serve` until it is ready; its address, and the process."""
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        argv = [*PORTAL, command, "--port", str(port)]
        everything = {**self.environment, **environment}
        with start_process(
            argv, everything, lambda: is_ready(address), cwd=self.folder, seconds=seconds
        ) as started:
            yield address, started

    def read(self, sql: str) -> list[tuple[object, ...]]:
        """What stands in the database."""
        with sqlite3.connect(self.folder / "var" / "portal.db") as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine that has never seen the portal."""
    return Host(tmp_path)


def is_ready(address: str) -> bool:
    """Whether /readyz says that requests may come. The port is looked at first: it costs nothing to
    do that often while the portal starts."""
    if not accepts(int(address.rpartition(":")[2])):
        return False
    try:
        return requests.get(f"{address}/readyz", timeout=30).status_code == 200
    except requests.RequestException:
        return False


def server_names(address: str) -> list[str]:
    """The servers that the Admin sees over the API."""
    answer = requests.get(f"{address}/v1/mcp/server", headers=ADMIN, timeout=30)
    assert answer.status_code == 200, answer.text
    return [server["server_name"] for server in answer.json()]


def printed(output: str, label: str) -> str:
    """What stands behind a label in what a command said."""
    found = re.search(rf"^\s*{label}\s+(\S+)", output, re.MULTILINE)
    assert found, output
    return found[1]


def group_size(leader: int) -> int:
    """How many processes are in a process group, zombies aside."""
    size = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _parent, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            size += int(group) == leader and state != "Z"
    return size


def wait_until(
    is_so: Callable[[], bool], process: "subprocess.Popen[bytes]", seconds: float
) -> bool:
    """Whether something comes true in time; the pause between two looks is a wait for `process`,
    where it lives."""
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    return is_so()


def sign_in(address: str, email: str, password: str) -> requests.Response:
    """The page a person lands on after they have signed in with a browser."""
    browser = requests.Session()
    page = browser.get(f"{address}/login", timeout=30)
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
    assert token, page.text
    fields = {"email": email, "password": password, "csrf_token": token[1]}
    return browser.post(f"{address}/login", data=fields, timeout=30)


def config_with_a_dead_server(host: Host) -> Path:
    """A config file with one server, at a port where nobody listens."""
    config = host.folder / "portal.yaml"
    config.write_text(
        f"mcp_servers:\n  gone:\n    url: http://127.0.0.1:{free_port()}/mcp\n    transport: http\n"
    )
    return config


def health(host: Host) -> tuple[object, ...]:
    """What is stored of the health of the one server there is."""
    [found] = host.read("select health_status, health_reason from servers")
    return found


def test_first_start_makes_keys_a_database_and_an_admin_and_says_how_to_get_in(host: Host) -> None:
    with host.serving() as (address, started):
        assert requests.get(f"{address}/healthz", timeout=30).json() == {"status": "ok"}
        said = started.output()
        assert printed(said, "Sign in at") == f"{address}/login"
        landed = sign_in(address, printed(said, "Email"), printed(said, "Password"))
    keys = host.folder / "var" / "portal.env"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert "PORTAL_SECRET_KEY=" in keys.read_text()
    assert "PORTAL_ENCRYPTION_KEYS=" in keys.read_text()
    assert landed.status_code == 200
    assert landed.url == f"{address}/profile/password", (
        "a one-time password has to be changed first"
    )


def test_second_start_is_quick_and_asks_and_tells_nothing(host: Host) -> None:
    with host.serving():
        keys = (host.folder / "var" / "portal.env").read_text()
    begin = time.monotonic()
    with host.serving(seconds=SECOND_START_SECONDS) as (address, started):
        sys.stdout.write(f"second start: {time.monotonic() - begin:.2f} s\n")
        assert "Password" not in started.output()
        assert address in started.output()
    assert (host.folder / "var" / "portal.env").read_text() == keys
    assert host.read("select count(*) from users") == [(1,)]


def test_a_password_that_the_operator_gives_is_not_printed_and_need_not_be_changed(
    host: Host,
) -> None:
    given = {
        "PORTAL_BOOTSTRAP_ADMIN_EMAIL": "Root@Example.com",
        "PORTAL_BOOTSTRAP_ADMIN_PASSWORD": "chosen-by-hand",
    }
    with host.serving(**given) as (address, started):
        assert "chosen-by-hand" not in started.output()
        assert sign_in(address, "root@example.com", "chosen-by-hand").url == f"{address}/servers"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORTAL_SESSION_IDLE_MINUTES", "1"),
        ("PORTAL_ENCRYPTION_KEYS", "k1:planted-secret"),
        ("PORTAL_PUBLIC_URL", "portal.example.com"),
        ("PORTAL_DATABASE_URL", "mysql://localhost/portal"),
        ("PORTAL_ALLOW_PRIVATE_UPSTREAMS", "10.0.0.0/99"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_line_that_names_it(
    host: Host, name: str, value: str
) -> None:
    keys = {"PORTAL_SECRET_KEY": "s" * 40, "PORTAL_ENCRYPTION_KEYS": "k1:" + "A" * 43}
    ended = host.portal("serve", "--port", str(free_port()), **{**keys, name: value})
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith(f"Setting {name}: ")
    assert "planted-secret" not in ended.stderr + ended.stdout


def test_keys_that_are_gone_are_not_made_up_for_a_database_that_needs_them(host: Host) -> None:
    assert host.portal("db", "upgrade").returncode == 0
    (host.folder / "var" / "portal.env").unlink()
    ended = host.portal("db", "upgrade")
    assert ended.returncode == 2
    assert "PORTAL_ENCRYPTION_KEYS" in ended.stderr
    assert not (host.folder / "var" / "portal.env").exists()


def test_people_are_added_by_command_once(host: Host) -> None:
    arguments = (
        "users",
        "add",
        "mel@example.com",
        "--role",
        "internal_user",
        "--password",
        "long-enough-word",
    )
    added = host.portal(*arguments)
    again = host.portal(*arguments)
    assert added.returncode == 0, added.stderr
    assert host.read("select user_id, role from users where email = 'mel@example.com'") == [
        (added.stdout.strip(), "internal_user")
    ]
    assert again.returncode == 1
    assert again.stderr == "Error: This email is already in use.\n"


def test_a_password_for_nobody_is_refused_with_a_word(host: Host) -> None:
    ended = host.portal("users", "password", "nobody@example.com", "--password", "long-enough-word")
    assert ended.returncode == 1
    assert ended.stderr == "Error: No user has the email nobody@example.com.\n"


def test_a_key_works_from_its_issue_to_its_revocation(host: Host) -> None:
    person = host.portal(
        "users", "add", "mel@example.com", "--password", "long-enough-word"
    ).stdout.strip()
    key = host.portal("keys", "issue", "--user", person, "--alias", "laptop").stdout.strip()
    [(key_id,)] = host.read("select key_id from api_keys where key_alias = 'laptop'")
    with host.serving() as (address, _):

        def ask() -> int:
            return requests.get(
                f"{address}/v1/me", headers={"X-API-Key": key}, timeout=30
            ).status_code

        assert ask() == 200
        revoked = host.portal("keys", "revoke", str(key_id))
        assert revoked.returncode == 0, revoked.stderr
        assert ask() == 401


def test_the_schema_goes_up_and_down_and_the_doctor_tells(host: Host) -> None:
    assert host.portal("db", "upgrade").stdout == "The database is at head.\n"
    well = host.portal("doctor")
    assert well.returncode == 0, well.stdout
    assert "password sign-in: on" in well.stdout
    assert "/oauth/callback" in well.stdout
    assert host.portal("db", "downgrade", "base").returncode == 0
    ill = host.portal("doctor")
    assert ill.returncode == 1
    assert "BAD  migrations: not up to date · Run: portal db upgrade" in ill.stdout
    assert host.portal("db", "upgrade").returncode == 0
    assert host.portal("doctor").stdout == well.stdout


def test_servers_of_the_config_file_are_there_read_only_and_go_with_it(host: Host) -> None:
    config = host.folder / "portal.yaml"
    config.write_text(
        "mcp_servers:\n"
        "  docs:\n    url: https://docs.example/mcp\n    transport: http\n"
        "  broken:\n    url: not a url\n    transport: http\n"
    )
    with host.serving(PORTAL_CONFIG=str(config)) as (address, started):
        assert "Config: mcp_servers.broken: " in started.output()
        assert server_names(address) == ["docs"]
        [(server_id,)] = host.read("select server_id from servers")
        change = requests.put(
            f"{address}/v1/mcp/server",
            headers=ADMIN,
            json={"server_id": server_id, "alias": "mine"},
            timeout=10,
        )
        assert change.status_code == 403, change.text
        removal = requests.delete(f"{address}/v1/mcp/server/{server_id}", headers=ADMIN, timeout=30)
        assert removal.status_code == 403, removal.text
    config.write_text("mcp_servers: {}\n")
    with host.serving(PORTAL_CONFIG=str(config)) as (address, _):
        assert server_names(address) == []


def test_the_worker_does_once_what_is_due(host: Host) -> None:
    with host.serving(PORTAL_CONFIG=str(config_with_a_dead_server(host))):
        pass
    with sqlite3.connect(host.folder / "var" / "portal.db") as connection:
        connection.execute(
            "update servers set health_status = 'unknown', health_reason = 'never_checked',"
            " probe_started_at = null, probe_due_at = '2026-01-01 00:00:00.000000'"
        )
    ended = host.portal("worker", "--once")
    assert ended.returncode == 0, ended.stderr
    assert health(host) == ("unhealthy", "refused")


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_portal_leaves_no_process_behind(host: Host, kind: signal.Signals) -> None:
    with host.serving() as (_, started):
        assert wait_until(lambda: group_size(started.pid) == 5, started.process, 10), (
            "master, front, two for the web, worker"
        )
        os.kill(started.pid, kind)
        started.process.wait(ORPHANS_GONE_SECONDS)
        assert group_size(started.pid) == 0, started.output()


def test_web_and_worker_end_by_themselves_when_their_parent_is_killed(host: Host) -> None:
    with host.serving(PORTAL_CONFIG=str(config_with_a_dead_server(host))) as (_, started):
        assert wait_until(lambda: health(host) == ("unhealthy", "refused"), started.process, 20), (
            "the worker works"
        )
        started.process.kill()
        assert wait_until(
            lambda: group_size(started.pid) == 0, started.process, ORPHANS_GONE_SECONDS
        )


def test_the_demo_fills_itself_once_and_its_server_ends_with_it(host: Host) -> None:
    with host.serving(command="demo") as (address, started):
        first = server_names(address)
        said = started.output()
        landed = sign_in(address, "mel@demo.example", printed(said, "Sample users +password"))
        assert landed.url == f"{address}/servers"
        assert {"echo", "echo_personal", "notes"} <= set(first)
        os.kill(started.pid, signal.SIGTERM)
        started.process.wait(ORPHANS_GONE_SECONDS)
        assert group_size(started.pid) == 0, said
    with host.serving(command="demo") as (address, started):
        assert server_names(address) == first
        url = printed(started.output(), "Sample MCP server")
        echo = requests.get(f"{address}/v1/mcp/server/echo", headers=ADMIN, timeout=20).json()
        assert echo["url"] == url, "the sample leads to the server of this start"
    assert host.read("select count(*) from users where email like '%@demo.example'") == [(4,)]


def test_the_catalogue_goes_into_a_file_and_comes_back(host: Host) -> None:
    """All servers of a file, or none where one is wrong; what is there already stays as it is."""
    good = host.folder / "good.yaml"
    bad = host.folder / "bad.yaml"
    good.write_text("mcp_servers:\n  one:\n    transport: http\n    url: https://one.example/mcp\n")
    bad.write_text(
        "mcp_servers:\n  two:\n    url: https://two.example\n  three:\n    transport: smoke\n"
    )
    first = host.portal("catalog", "import", "good.yaml")
    assert (first.returncode, first.stdout) == (0, "imported one\n"), first.stderr
    refused = host.portal("catalog", "import", "bad.yaml")
    assert refused.returncode == 1
    assert "three, line 4" in refused.stderr
    assert host.read("select server_name from servers") == [("one",)]
    exported = host.portal("catalog", "export").stdout
    assert "url: https://one.example/mcp" in exported
    assert host.portal("catalogue", "export", "--format", "catalogue.yaml").stdout == exported, (
        "by the old names"
    )
    good.write_text(exported.replace("one.example", "new.example"))
    again = host.portal("catalog", "import", "good.yaml")
    assert again.stdout.startswith("skipped one: ")
    assert host.portal("catalog", "import", "good.yaml", "--update").stdout == "imported one\n"
    assert "new.example" in host.portal("catalog", "export").stdout
