"""Pages of MCP servers: the grid, and what there is about one of them."""
