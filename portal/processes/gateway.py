"""The process of the gateway, which MCP clients connect to."""

import uvicorn

from portal import telemetry
from portal.app import create_gateway
from portal.settings import Settings
from portal.store.database import Database

_KEEP_ALIVE = 15  # seconds; longer than proxies keep idle connections
_GRACE = 20


def serve(settings: Settings, database: Database, *, host: str, port: int) -> None:
    """Serve until stopped; running calls can finish."""
    telemetry.begin(settings)
    config = uvicorn.Config(
        create_gateway(settings, database),
        host=host,
        port=port,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )
    uvicorn.Server(config).run()
