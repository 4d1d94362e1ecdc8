"""The portal as OAuth authorization server for MCP clients.

Use cases: `authorize_endpoint`, `byok`, `consents`, `metadata`, `registration`, `token_endpoint`.
"""
