"""Tools of servers: calls, changed definitions, toolsets, and client setup.

Use cases: `calls`, `client_setup`, `tool_changes`, `toolsets`.
"""
