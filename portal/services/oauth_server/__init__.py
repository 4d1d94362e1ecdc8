"""The portal as the authorization server of its gateway: apps sign in for a user and get tokens of
the portal.

Use cases: `apps`, `authorize`, `bearers`, `token_endpoint`.
"""

from portal.services.oauth_server.bearers import is_access_token, principal_of

__all__ = ["is_access_token", "principal_of"]
