"""Where servers come from and go to: discovery, OpenAPI, import and export, the public registry,
enforcement.

Use cases: `discover`, `enforcement`, `exports`, `imports`, `openapi`, `registry`.
"""
