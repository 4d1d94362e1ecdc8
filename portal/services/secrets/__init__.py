"""Secrets as they are stored: what each is bound to, how it is sealed, and the rotation of the key
ring.

Use cases: `rotation`.
"""
