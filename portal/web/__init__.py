"""The web layer: HTML pages and the JSON API. It contains no business rules."""

from flask import Flask, Response, request

from portal.settings import Settings
from portal.store import schema
from portal.store.database import Database
from portal.web import api as api_routes
from portal.web import context, errors, limits, oauth, pages, rendering, request_log
from portal.web.sessions import StoredSessions


def register(app: Flask, settings: Settings, database: Database) -> None:
    """Register sessions, error handlers, rate limits and all routes."""
    request_log.init_app(app, settings)  # first, so that it logs all requests
    app.session_interface = StoredSessions(database, https=settings.https)

    @app.before_request
    def _let_larger_bodies_in() -> None:
        if request.endpoint in limits.LARGER_BODIES:  # before the body is read
            request.max_content_length = limits.LARGER_BODIES[request.endpoint]

    context.init_app(app)
    rendering.init_app(app, https=settings.https)
    errors.init_app(app)
    limits.init_app(app, settings)
    _register_probes(app, settings, database)
    pages.register(app)
    api_routes.register(app)
    oauth.register(app, settings)
    app.after_request(context.commit_or_undo)  # registered last, so it runs first


def _register_probes(app: Flask, settings: Settings, database: Database) -> None:
    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> tuple[dict[str, str], int]:
        fault = schema.fault_of(database)
        if fault is not None:
            return {"status": "unavailable", "database": fault}, 503
        told = {"status": "ok", "database": "ok"}
        if (there := limits.redis_is_there()) is not None:
            told["redis"] = "ok" if there else "unavailable: rate limits are counted per process"
        return told, 200

    if settings.metrics:

        @app.get("/metrics")
        def metrics() -> Response:
            return request_log.show_metrics(database)
