"""The data plane: forwards MCP clients to MCP servers, with the rules of the catalog."""
