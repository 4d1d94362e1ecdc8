"""What the gateway asks of the catalog before it passes a request on.

Use cases: `route`.
"""
