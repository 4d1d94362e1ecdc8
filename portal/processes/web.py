"""Running the portal: startup, the web processes, and the worker."""

import gc
import logging
import os
import signal
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
from portal.app import create_app, open_database
from portal.domain.errors import InvalidInput, PortalError
from portal.domain.principals import OPERATOR
from portal.processes.beside import Beside
from portal.processes.front import FrontBeside, PeerOfFront
from portal.services.access import sessions
from portal.services.credentials import providers
from portal.services.drafts import temporary_servers
from portal.services.oauth_server import apps
from portal.services.operations import binding, bootstrap, revocations
from portal.services.tools import tool_changes
from portal.services.upstreams import connection_test, health
from portal.settings import Settings
from portal.store.database import Database, take_turn
from portal.telemetry import logs, metrics
from portal.telemetry.traces import span
from portal.upstream import loop

log = logging.getLogger("portal.worker")
WORKER = "portal-worker"
"""The name of the embedded worker's process, for operators."""

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
    """Serve until stopped; in embedded mode, with a front for MCP clients and a worker."""
    import portal.web  # noqa: F401 - before gunicorn forks, so that its processes share memory

    logs.begin(settings.log_format, settings.log_level)
    with metrics.shared_folder(wanted=settings.metrics):
        front = _front(settings, host, port) if settings.embedded else None
        bind = f"unix:{front.pages}" if front is not None else _address(host, port)
        _Gunicorn(settings, bind=bind, workers=workers, front=front).run()


def _front(settings: Settings, host: str, port: int) -> FrontBeside:
    try:
        return FrontBeside(settings, host, port)
    except OSError as error:
        said = os.strerror(error.errno or 0)
        sys.exit(f"Cannot listen on {_address(host, port)}: {said}. Choose another --port.")


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
                apps.delete_expired_apps(session, OPERATOR)
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
        bind: str,
        workers: int,
        front: FrontBeside | None,
    ) -> None:
        self._portal_settings = settings
        self._front = front
        self._options: dict[str, Any] = {
            "bind": [bind],
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
            "post_fork": self._release,
            "pre_exec": self._hand_over,
            # Requests cannot change the scheme or script name. Gunicorn trusts Unix sockets.
            "secure_scheme_headers": {},
            "forwarder_headers": "",
        }
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        telemetry.begin(self._portal_settings)
        loop.limit(_THREADS - _THREADS_FOR_PAGES)
        app = create_app(self._portal_settings)
        return app if self._front is None else PeerOfFront(app)

    def run(self) -> None:
        _Master(self, self._portal_settings, self._front).run()

    def _release(self, _master: Arbiter, _worker: object) -> None:
        if self._front is not None:
            self._front.release()

    def _hand_over(self, master: Arbiter) -> None:
        environment.hand_over_at_exec(master.cfg.env_orig)
        if self._front is not None:
            self._front.hand_over(master.cfg.env_orig)


class _Master(Arbiter):  # type: ignore[misc]
    """gunicorn's master, which also restarts the embedded front and worker, about once a second."""

    def __init__(self, app: _Gunicorn, settings: Settings, front: FrontBeside | None) -> None:
        self._front = front
        self._worker = None
        if settings.embedded:
            self._worker = Beside(WORKER, lambda: _work_beside(settings, front))
        super().__init__(app)

    def manage_workers(self) -> None:
        if self._front is not None:
            self._front.look_after()
        super().manage_workers()
        if self._worker is not None:
            self._worker.look_after()

    def stop(self, graceful: bool = True) -> None:
        if self._front is not None:
            self._front.end()
        super().stop(graceful)
        if self._front is not None and self.reexec_pid == 0:
            self._front.remove_socket()
        if self._worker is not None:
            self._worker.end()


def _work_beside(settings: Settings, front: FrontBeside | None) -> None:
    if front is not None:
        front.release()  # otherwise a worker that outlives its master would keep the port
    work(settings, open_database(settings), once=False, parent=os.getppid())


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
