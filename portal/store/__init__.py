"""Database rows and the vault; contains no business rules."""

# One metadata: importing any table registers all.
from portal.store import call_tables, models, oauth_tables

__all__ = ["call_tables", "models", "oauth_tables"]
