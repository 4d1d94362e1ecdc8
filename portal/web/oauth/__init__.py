"""OAuth endpoints and redirects. The flows themselves are in `services/`."""

from flask import Flask

from portal.web.oauth import (
    broker,
    byok,
    callback,
    connections,
    documents,
    server,
    sign_in,
    well_known,
)


def register(app: Flask) -> None:
    """Register the OAuth blueprints."""
    for module in (broker, byok, callback, connections, documents, server, sign_in, well_known):
        app.register_blueprint(module.bp)
