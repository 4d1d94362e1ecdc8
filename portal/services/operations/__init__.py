"""Running the portal: first start, backup and restore, what was revoked meanwhile, and what waits
to be done.

Use cases: `backlog`, `backups`, `binding`, `bootstrap`, `revocations`.
"""
