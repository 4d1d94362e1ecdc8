"""The record of what was done: writing events, reading them, and the hash chain that holds them
together.

Use cases: `events`, `trail`. What most callers need is here: `record`, `changed` and `Outcome`.
"""

from portal.services.audit.events import Outcome, changed, record

__all__ = ["Outcome", "changed", "record"]
