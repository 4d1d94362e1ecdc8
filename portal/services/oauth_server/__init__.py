"""The portal as authorization server of its own gateway: apps sign in for a person, and get tokens
of the portal's own.

Use cases: `authorize`, `bearers`, `token_endpoint`.
"""

from portal.services.oauth_server.bearers import is_access_token, principal_of

__all__ = ["is_access_token", "principal_of"]
