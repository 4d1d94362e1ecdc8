"""Static files: their addresses and caching, and the stylesheet, which is a file per layer."""

import gzip
import hashlib
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, Response, request

LAYERS = ("tokens", "elements", "layout", "components", "pages", "utilities")
"""The cascade layers, from weakest to strongest. Each is a file in `static/styles/`."""

_STYLESHEET = re.compile(r"portal(\.[0-9a-f]{12})?\.css")
_COMPRESSED = (".css", ".js", ".svg")
_FOREVER = "public, max-age=31536000, immutable"


def stylesheet(folder: Path) -> bytes:
    """Return the stylesheet, made of the layers in `folder`, the folder of static files."""
    layers = [(folder / "styles" / f"{name}.css").read_text("utf-8") for name in LAYERS]
    return "\n".join([f"@layer {', '.join(LAYERS)};\n", *layers]).encode()


@dataclass(frozen=True)
class Asset:
    """A static file in memory, as it is and compressed."""

    body: bytes
    compressed: bytes
    media_type: str
    digest: str

    @classmethod
    def of(cls, name: str, body: bytes) -> "Asset":
        """Return the asset of a file with this name and content."""
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return cls(body, gzip.compress(body, mtime=0), media_type, _digest(body))

    def response(self) -> Response:
        """Return the response to the current request: 304 if the client has this content."""
        is_compressed = request.accept_encodings.quality("gzip") > 0
        response = Response(
            self.compressed if is_compressed else self.body, mimetype=self.media_type
        )
        if is_compressed:
            response.content_encoding = "gzip"
        response.set_etag(f"{self.digest}-gzip" if is_compressed else self.digest)
        response.vary.add("Accept-Encoding")
        response.make_conditional(request)
        return response


def init_app(app: Flask) -> Mapping[str, str]:
    """Serve the static files; return the address of each by its name.

    An address contains a hash of the content, so it can be cached forever. The stylesheet has it in
    its name: `/static/portal.<hash>.css`.
    """
    folder = Path(str(app.static_folder))
    sheet = Asset.of("portal.css", stylesheet(folder))
    address = f"/static/portal.{sheet.digest}.css"
    assets = {}
    digests = {}
    addresses = {"portal.css": address}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        body = path.read_bytes()
        digests[name] = _digest(body)
        addresses[name] = f"/static/{name}?v={digests[name]}"
        if path.suffix in _COMPRESSED:
            assets[name] = Asset.of(name, body)

    def serve(filename: str) -> Response:
        if _STYLESHEET.fullmatch(filename):
            # During an upgrade, a page of another version asks for the stylesheet with its hash.
            response = sheet.response()
            response.headers["Cache-Control"] = _FOREVER if request.path == address else "no-cache"
            return response
        asset = assets.get(filename)
        response = asset.response() if asset else app.send_static_file(filename)
        asked = request.args.get("v")
        if asked is None:
            response.headers["Cache-Control"] = "public, max-age=300"
        else:
            # Another hash is that of another version: this content must not be kept under it.
            is_this = asked == digests.get(filename)
            response.headers["Cache-Control"] = _FOREVER if is_this else "no-cache"
        return response

    app.view_functions["static"] = serve
    return addresses


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:12]
