"""OAuth in the browser: redirects out and back. It only redirects; `services/` own the flows."""

from flask import Flask

from portal.web.oauth import callback, connect, documents


def register(app: Flask) -> None:
    """The list of OAuth blueprints."""
    for module in (callback, connect, documents):
        app.register_blueprint(module.bp)
