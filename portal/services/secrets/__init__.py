"""Stored secrets: what each is bound to, how it is sealed, and key rotation.

Use cases: `rotation`.
"""
