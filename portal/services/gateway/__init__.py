"""Decisions of the catalog about a request to the gateway.

Use cases: `calls`, `route`.
"""
