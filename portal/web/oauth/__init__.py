"""OAuth in the browser: redirects out and back. It only redirects; `services/` own the flows."""

from flask import Flask

from portal.web.oauth import (
    broker,
    byok,
    callback,
    connect,
    documents,
    server,
    sign_in,
    well_known,
)


def register(app: Flask) -> None:
    """The list of OAuth blueprints."""
    for module in (broker, byok, callback, connect, documents, server, sign_in, well_known):
        app.register_blueprint(module.bp)
