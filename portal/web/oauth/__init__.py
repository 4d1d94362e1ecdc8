"""OAuth in the browser: redirects out and back. It only redirects; `services/` own the flows."""

from flask import Flask

from portal.web.oauth import byok, callback, connect, documents, sign_in


def register(app: Flask) -> None:
    """The list of OAuth blueprints."""
    for module in (byok, callback, connect, documents, sign_in):
        app.register_blueprint(module.bp)
