"""Servers tested before they are saved: held definitions, and the sign-in of a draft.

Use cases: `sign_in`, `temporary_servers`.
"""
