"""Users' own values, keys and connections for servers, and the check of OAuth settings.

Use cases: `connections`, `oauth_check`, `providers`, `self_service`, `setup`.
"""
