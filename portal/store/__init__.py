"""Database rows and the vault; contains no business rules."""

from portal.store import models, oauth_tables  # one metadata: whoever opens a table knows them all

__all__ = ["models", "oauth_tables"]
