"""OpenAPI 3.0 and 3.1 documents as tools: what they describe, and how a call of one becomes an HTTP
request."""
