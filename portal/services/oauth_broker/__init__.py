"""The portal as OAuth authorization server of MCP clients: registration, metadata, codes, tokens,
consent.

Use cases: `authorize_endpoint`, `byok`, `consents`, `metadata`, `registration`, `token_endpoint`.
"""
