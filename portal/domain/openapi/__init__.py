"""OpenAPI 3.0 and 3.1 documents as tools, and tool calls as HTTP requests."""
