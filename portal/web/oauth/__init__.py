"""OAuth endpoints and redirects. The flows themselves are in `services/`."""

from flask import Flask

from portal.settings import Settings
from portal.web.oauth import (
    broker,
    browser_clients,
    byok,
    callback,
    connections,
    documents,
    server,
    sign_in,
    well_known,
)


def register(app: Flask, settings: Settings) -> None:
    """Register the OAuth blueprints."""
    browser_clients.init_app(app, settings)
    for module in (broker, byok, callback, connections, documents, server, sign_in, well_known):
        app.register_blueprint(module.bp)
