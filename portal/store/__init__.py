"""Database rows and the vault; contains no business rules."""

from portal.store import models, oauth_tables  # one metadata: importing any table registers all

__all__ = ["models", "oauth_tables"]
