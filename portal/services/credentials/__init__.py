"""What people store for themselves: values, keys and connections to servers, and the check of OAuth
settings.

Use cases: `connections`, `oauth_check`, `providers`, `self_service`, `setup`.
"""
