"""Upstream servers: building requests to them, connection tests, and health checks.

Use cases: `connection_test`, `health`.
"""
