"""Servers that are tried before they are saved: definitions held for a test, and the sign-in of a
draft.

Use cases: `sign_in`, `temporary_servers`.
"""
