"""Sources and outputs of servers: discovery, OpenAPI, import, export, registry, enforcement.

Use cases: `discover`, `enforcement`, `exports`, `imports`, `openapi`, `registry`.
"""
