"""Pages of MCP servers: the grid, and the pages of one server."""
