"""The portal as OAuth client of servers: discovery, registration, redirects, tokens, revocation.

For the packages above it; it has no use case of its own.
"""
