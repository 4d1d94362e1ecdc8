"""Servers on the other side: what a request to one needs, the test of a connection, and health.

Use cases: `connection_test`, `health`.
"""
