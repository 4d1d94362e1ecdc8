"""The gateway: clients talk to it as they would to a server."""
