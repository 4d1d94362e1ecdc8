"""MCP Portal. `docs/architecture.md` explains its layers.

From top to bottom: cli, demo, processes, app, web, services, authorization, store and upstream,
telemetry, domain, settings, environment, resources.
"""
