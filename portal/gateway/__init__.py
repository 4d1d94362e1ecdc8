"""The data plane: MCP clients on one side, MCP servers on the other, and the rules of the catalog
between."""
