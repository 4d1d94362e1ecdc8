"""Speaks HTTP and decides nothing: two doors, pages for people and an API for programs."""

from flask import Flask, Response, request

from portal.settings import Settings
from portal.store import schema
from portal.store.database import Database
from portal.web import api as api_door
from portal.web import context, errors, limits, oauth, pages, rendering, request_log
from portal.web.sessions import StoredSessions


def register(app: Flask, settings: Settings, database: Database) -> None:
    """The list of all that hangs on the application."""
    request_log.init_app(app, settings)  # first: whatever comes after it is seen
    app.session_interface = StoredSessions(database, https=settings.https)

    @app.before_request
    def _let_larger_bodies_in() -> None:
        if request.endpoint in limits.LARGER_BODIES:  # before anything looks into the body
            request.max_content_length = limits.LARGER_BODIES[request.endpoint]

    context.init_app(app)
    rendering.init_app(app, https=settings.https)
    errors.init_app(app)
    limits.init_app(app, settings)
    _register_probes(app, settings, database)
    pages.register(app)
    api_door.register(app)
    oauth.register(app)
    app.after_request(context.commit_or_undo)  # the last to be registered is the first to run


def _register_probes(app: Flask, settings: Settings, database: Database) -> None:
    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> tuple[dict[str, str], int]:
        if not database.answers():
            return {"status": "unavailable", "database": "does not answer"}, 503
        if not schema.serves(database.engine):
            return {
                "status": "unavailable",
                "database": "is not at head: run portal db upgrade",
            }, 503
        told = {"status": "ok", "database": "ok"}
        if (there := limits.redis_is_there()) is not None:
            told["redis"] = "ok" if there else "is away: each process counts its own rate limits"
        return told, 200

    if settings.metrics:

        @app.get("/metrics")
        def metrics() -> Response:
            return request_log.show_metrics(database)
