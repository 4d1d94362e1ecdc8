"""Running the portal: startup, the web processes, and the worker."""

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import yaml
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger as GunicornLogger
from sqlalchemy.exc import SQLAlchemyError

from portal import environment, telemetry
from portal.app import create_app
from portal.domain.errors import InvalidInput, PortalError
from portal.domain.principals import OPERATOR
from portal.services.access import sessions
from portal.services.credentials import providers
from portal.services.drafts import temporary_servers
from portal.services.operations import binding, bootstrap, revocations
from portal.services.tools import tool_changes
from portal.services.upstreams import connection_test, health
from portal.settings import Settings
from portal.store.database import Database, take_turn
from portal.telemetry import logs, metrics
from portal.telemetry.traces import span
from portal.upstream import loop

log = logging.getLogger("portal.worker")
_START_LOCK = 7_204_917_002
_IDLE_SECONDS = 2.0
_TIDY_EVERY = 300
_THREADS = 8
_THREADS_FOR_PAGES = 2  # of each process, so that pages work even if all upstreams hang


def begin(settings: Settings, database: Database, *, announce: Callable[[str], None]) -> None:
    """Create the first Admin and load the config file. Prints the one-time password."""
    with database.session(writes=True) as session:
        take_turn(session, _START_LOCK)  # hosts may start at once, but only one creates the Admin
        password = settings.bootstrap_admin_password
        key = settings.bootstrap_api_key
        try:
            admin = bootstrap.make_first_admin(
                session,
                OPERATOR,
                email=settings.bootstrap_admin_email,
                password=password.get_secret_value() if password else None,
                api_key=key.get_secret_value() if key else None,
            )
        except InvalidInput as error:
            setting = {"password": "PASSWORD", "email": "EMAIL"}.get(error.field or "")
            if setting is None:
                raise
            sys.exit(f"Setting PORTAL_BOOTSTRAP_ADMIN_{setting}: {error.message}")
        faults = bootstrap.apply_config(session, OPERATOR, _config(settings))
        session.commit()
        binding.bind_all(session, OPERATOR)
    database.engine.dispose()  # gunicorn forks next, and its children must not share connections
    for fault in faults:
        announce(f"Config: {fault}")
    if admin is not None:
        announce(f"\n  Sign in at   {settings.public_url}/login")
        announce(f"  Email        {admin.email}")
        announce(f"  Password     {admin.password or 'as set in the environment'}\n")
    else:
        announce(f"  MCP Portal is at {settings.public_url}")


def serve(settings: Settings, *, host: str, port: int, workers: int) -> None:
    """Serve until stopped; in embedded mode, with a worker that ends with this process."""
    import portal.web  # noqa: F401 - before gunicorn forks, so that its processes share memory

    logs.begin(settings.log_format, settings.log_level)
    with metrics.shared_folder(wanted=settings.metrics):
        beside = _WorkerBeside() if settings.embedded else None
        try:
            _Gunicorn(settings, host=host, port=port, workers=workers, beside=beside).run()
        finally:
            if beside is not None:
                beside.end()


def work(settings: Settings, database: Database, *, once: bool, parent: int | None = None) -> None:
    """Do what is due in a loop, until stopped or until `parent` is no longer the parent process."""
    telemetry.begin(settings)
    if settings.metrics and settings.worker_metrics and parent is None:
        metrics.serve(settings.worker_metrics)
    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    rounds = 0
    while not stopped.is_set() and parent in (None, os.getppid()):
        done = 0
        try:
            done = do_round(database, tidies=rounds % _TIDY_EVERY == 0)
        except PortalError as error:  # claimed work is due again when the claim expires
            log.warning("worker cycle failed (%s)", error)
        except SQLAlchemyError as error:
            log.warning("the database did not respond (%s); trying again", type(error).__name__)
            metrics.count("portal_worker_rounds_total", "database_failed")
        rounds += 1
        if once and not done:
            return
        if not done:
            stopped.wait(_IDLE_SECONDS)


def do_round(database: Database, *, tidies: bool) -> int:
    """Do what is due now, and return the number of items."""
    began = time.monotonic()
    with span("worker round"):
        with database.session() as session:
            revocations.catch_up_due(session, OPERATOR)
        with database.session(writes=True) as session:
            probed = health.probe_due(session, OPERATOR)
        with database.session(writes=True) as session:
            compared = tool_changes.compare_due(session, OPERATOR)
        if tidies:
            with database.session(writes=True) as session:
                sessions.sweep_sessions(session, OPERATOR)
                temporary_servers.delete_expired_servers(session, OPERATOR)
                providers.clean_up_tokens(session, OPERATOR)
                health.forget_old_history(session, OPERATOR)
                session.commit()
            with database.session() as session:
                connection_test.forget_homes(session, OPERATOR)
    metrics.count("portal_worker_rounds_total", "done")
    if probed or compared:
        told = {
            "probed": probed,
            "compared": compared,
            "ms": round((time.monotonic() - began) * 1000),
        }
        log.info("a round is done", extra=told)
    return probed + compared


class _Log(GunicornLogger):  # type: ignore[misc]
    """gunicorn's log messages in the portal's format, without its access log."""

    def setup(self, cfg: Any) -> None:
        """Replace gunicorn's own handlers."""
        self.error_log.handlers, self.error_log.propagate = [], True
        self.error_log.setLevel(logging.WARNING)


class _Gunicorn(BaseApplication):  # type: ignore[misc]
    """gunicorn with the portal's settings, started from the portal's command."""

    def __init__(
        self,
        settings: Settings,
        *,
        host: str,
        port: int,
        workers: int,
        beside: "_WorkerBeside | None",
    ) -> None:
        self._portal_settings, self._beside = settings, beside
        self._options: dict[str, Any] = {
            "bind": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"],
            "workers": workers,
            "threads": _THREADS,
            "worker_class": "gthread",
            "timeout": 60,
            "graceful_timeout": 20,
            "keepalive": 15,
            "limit_request_line": 8190,
            "limit_request_field_size": 16_380,
            "loglevel": "warning",
            "proc_name": "mcp-portal",
            "control_socket_disable": True,
            "logger_class": _Log,
            "child_exit": lambda _server, worker: metrics.forget_process(worker.pid),
            "post_worker_init": _settle,
            "pre_exec": lambda master: environment.hand_over_at_exec(master.cfg.env_orig),
        }
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        telemetry.begin(self._portal_settings)
        loop.limit(_THREADS - _THREADS_FOR_PAGES)
        return create_app(self._portal_settings)

    def run(self) -> None:
        _Master(self, self._beside).run()


class _Master(Arbiter):  # type: ignore[misc]
    """gunicorn's master, which also restarts the embedded worker, about once a second."""

    def __init__(self, app: _Gunicorn, beside: "_WorkerBeside | None") -> None:
        self._beside = beside
        super().__init__(app)

    def manage_workers(self) -> None:
        super().manage_workers()
        if self._beside is not None:
            self._beside.look_after()


class _WorkerBeside:
    """The worker of embedded mode, restarted if it dies."""

    def __init__(self) -> None:
        self._process = self._start()

    def look_after(self) -> None:
        """Start the worker again if it has ended."""
        if self._process.poll() is not None:
            log.warning("the worker ended; starting it again")
            metrics.forget_process(self._process.pid)
            self._process = self._start()

    def end(self) -> None:
        """Stop the worker gracefully."""
        self._process.terminate()
        self._process.wait(timeout=10)

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "portal.cli", "worker", "--parent", str(os.getpid())]
        with environment.handed_over() as (variables, descriptors):
            return subprocess.Popen(command, env=variables, pass_fds=descriptors)  # noqa: S603


def _settle(_worker: object) -> None:
    """Exclude startup objects from garbage collection: they stay, and scanning takes long."""
    gc.collect()
    gc.freeze()
    # A long list creates more objects than the default threshold of 700, and was scanned
    # repeatedly.
    gc.set_threshold(50_000, 20, 100)


def _config(settings: Settings) -> dict[str, Any]:
    if settings.config is None:
        return {}
    try:
        loaded = yaml.safe_load(settings.config.read_text())
    except (OSError, yaml.YAMLError) as error:
        sys.exit(f"Setting PORTAL_CONFIG: the file cannot be read ({type(error).__name__}).")
    return loaded if isinstance(loaded, dict) else {}
