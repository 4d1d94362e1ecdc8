"""MCP Portal. The floors, top to bottom: cli, app, web, services, authorization, store | upstream, domain, settings,
resources."""
