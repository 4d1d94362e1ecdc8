"""The audit log: writing events, reading them, and the hash chain that links them.

Use cases: `events`, `trail`, `verification`. Most callers only need `record`, `changed` and
`Outcome` from here.
"""

from portal.services.audit.events import Outcome, changed, record

__all__ = ["Outcome", "changed", "record"]
