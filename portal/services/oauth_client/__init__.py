"""The portal as OAuth client of servers: discovery, registration, redirects, tokens, revocation.

Helpers for the packages above it; it has no use cases.
"""
