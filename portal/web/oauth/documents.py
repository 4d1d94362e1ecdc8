"""Metadata of the portal as an OAuth client."""

from flask import Blueprint, Response, jsonify

from portal.services.oauth_client.registration import metadata_document
from portal.web.context import settings

bp = Blueprint("oauth_documents", __name__)


@bp.get("/.well-known/oauth-client")
def client() -> Response:
    """Return the Client ID Metadata Document. Its URL is the portal's client ID."""
    return jsonify(metadata_document(settings().public_url))
