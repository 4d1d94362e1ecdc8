"""Operating the portal: first start, backup, restore, revocations, and the backlog.

Use cases: `backlog`, `backups`, `binding`, `bootstrap`, `revocations`.
"""
