"""The tools of servers: calling them, watching them for changes, toolsets, and settings for
clients.

Use cases: `calls`, `client_setup`, `tool_changes`, `toolsets`.
"""
