"""The baseline: the least Flask application that could show the grid. One Core query, one template, nobody asked.

    BARE_DATABASE=/path/to.db gunicorn bench.bare:app

`/?card=N&rest=M` adds N bytes to each card and M to the page, so that it answers as many bytes as the portal does.
"""

import os
from pathlib import Path

from flask import Flask, render_template, request
from sqlalchemy import create_engine, select

from portal.store.models import Server

PAGE_SIZE = 48
_COLUMNS = (
    Server.server_id, Server.server_name, Server.alias, Server.description, Server.transport, Server.auth_type,
    Server.address, Server.is_byok, Server.is_public, Server.available_on_public_internet, Server.health_status,
    Server.health_reason, Server.health_checked_at, Server.mcp_info, Server.sort_key,
)  # fmt: skip

app = Flask("bare", root_path=str(Path(__file__).parent), template_folder=".")
app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
engine = create_engine(f"sqlite:///{os.environ['BARE_DATABASE']}")
_PAGE = (
    select(*_COLUMNS)
    .where(Server.approval_status == "active")
    .order_by(Server.sort_key, Server.server_id)
    .limit(PAGE_SIZE)
)


@app.get("/")
def grid() -> str:
    """The first page."""
    with engine.connect() as connection:
        rows = connection.execute(_PAGE).all()
    card, rest = ("·" * (request.args.get(name, 0, int) // len("·".encode())) for name in ("card", "rest"))
    return render_template("bare.html", servers=rows, card=card, rest=rest)
