"""What the portal says of itself to other machines' OAuth software."""

from flask import Blueprint, Response, jsonify

from portal.services.oauth_client.registration import metadata_document
from portal.web.context import settings

bp = Blueprint("oauth_documents", __name__)


@bp.get("/.well-known/oauth-client")
def client() -> Response:
    """Our Client ID Metadata Document; its address is our client id."""
    return jsonify(metadata_document(settings().public_url))
