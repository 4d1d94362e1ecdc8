"""The baseline: a minimal Flask application with the same responses.

It has one Core query, one flat template, no authentication, no session and no macros. Addresses are
plain strings, and the text around the cards is constant.

    BARE_DATABASE=/path/to.db BARE_FRAMES=/path/to/folder gunicorn bench.bare:app

It imports nothing of the portal, so that its startup and memory are those of bare Flask. The folder
contains `page.html` and `fragment.html` from `bench.frames`.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from argon2 import PasswordHasher
from flask import Flask, Response, redirect, render_template, request
from jinja2 import FileSystemLoader
from sqlalchemy import create_engine, text

PAGE_SIZE = 48
_HERE = Path(__file__).parent
_LABELS = {"none": "No authentication", "bearer_token": "Bearer token"}
# The fields of the JSON list that the sample data leaves empty.
_BLANK: dict[str, Any] = dict.fromkeys(
    "instructions spec_path credentials tool_name_to_display_name tool_name_to_description command"
    " authorization_url token_url registration_url oauth2_flow token_validation"
    " byok_api_key_help_url has_user_credential source_url timeout health_check_error submitted_by"
    " submitted_at reviewed_by reviewed_at review_notes created_by updated_by".split()
) | {"allowed_tools": [], "extra_headers": [], "byok_description": [], "args": [], "env": {}}

app = Flask(
    "bare",
    root_path=str(_HERE),
    static_folder=str(_HERE.parent / "static"),
    static_url_path="/static",
)
app.jinja_loader = FileSystemLoader(os.environ["BARE_FRAMES"])
app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
engine = create_engine(f"sqlite:///{os.environ['BARE_DATABASE']}", pool_size=16)
hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

_GROUPS = """(select group_concat(name, ', ') from (
    select g.name from access_group_servers m
    join access_groups g on g.access_group_id = m.access_group_id
    where m.server_id = s.server_id order by g.name
  )) as access_groups"""
_SET = (
    "exists (select 1 from user_variables u where u.user_id = :me and u.server_id = v.server_id and"
    " u.name = v.name)"
)
_CARDS = text(
    f"""select s.server_id, s.server_name, s.alias, s.description, s.transport, s.auth_type,
  s.address, s.available_on_public_internet, s.health_status, s.health_checked_at, s.is_byok,
  {_GROUPS},
  (select group_concat(v.name, ', ') from server_variables v
   where v.server_id = s.server_id and v.is_required and not {_SET}) as missing,
  exists (select 1 from user_credentials c
   where c.user_id = :me and c.server_id = s.server_id and c.kind = 'byok') as has_key
  from servers s
  where s.approval_status = 'active' and (s.sort_key, s.server_id) > (:after, :after)
  order by s.sort_key, s.server_id limit {PAGE_SIZE + 1}"""
)
_LIST = text(
    f"""select s.server_id, s.server_name, s.alias, s.description, s.transport, s.auth_type,
  s.address, s.allow_all_keys, s.available_on_public_internet, s.delegate_auth_to_upstream,
  s.oauth_passthrough, s.is_byok, s.health_status, s.health_reason, s.health_checked_at,
  s.approval_status, s.created_at, s.updated_at, s.version, s.is_public, {_GROUPS},
  (select json_group_array(json_object(
    'name', v.name, 'value', null, 'scope', v.scope, 'description', v.description
   )) from server_variables v where v.server_id = s.server_id) as variables
  from servers s
  where s.approval_status = 'active'
  order by s.sort_key, s.server_id limit :limit"""
)
_STATUS = text(
    f"""select s.server_id, s.server_name, s.alias, v.name, v.description, {_SET} as is_set
  from server_variables v join servers s on s.server_id = v.server_id
  where v.is_required and s.approval_status = 'active'
  order by s.sort_key, s.server_id, v.position"""
)
_SAVE = text("""insert into user_variables (user_id, server_id, name, sealed, updated_at)
  values (:me, :server_id, 'TOKEN', :sealed, :now)
  on conflict (user_id, server_id, name) do update set sealed = :sealed, updated_at = :now""")
_PERSON = text("select user_id, password_hash from users where email = :email")
ME = {"me": "bench-admin"}


@app.template_filter()
def ago(moment: str) -> str:
    """Format a time of the sample data as the cards do."""
    return f"{(datetime.now(UTC) - datetime.fromisoformat(moment).replace(tzinfo=UTC)).days} d ago"


@app.template_filter()
def when(moment: str) -> str:
    """Format a time in full."""
    return datetime.fromisoformat(moment).strftime("%-d %b %Y, %H:%M UTC")


@app.get("/")
@app.get("/<any(page, fragment):piece>")
def grid(piece: str = "page") -> str:
    """Return a page of cards, or the fragment that htmx requests."""
    with engine.connect() as connection:
        rows = connection.execute(
            _CARDS, ME | {"after": request.args.get("cursor", "").partition("~")[0]}
        ).all()
    return render_template(
        f"{piece}.html", servers=rows[:PAGE_SIZE], labels=_LABELS, more=len(rows) > PAGE_SIZE
    )


@app.get("/list")
def servers() -> Response:
    """Return servers as JSON: `?limit=N`, or all."""
    with engine.connect() as connection:
        rows = (
            connection.execute(_LIST, {"limit": request.args.get("limit", -1, int)})
            .mappings()
            .all()
        )
    return _json([_server(row) for row in rows])


def _server(row: Any) -> dict[str, Any]:
    named = dict(row)
    groups = named.pop("access_groups")
    address = named.pop("address")
    variables = orjson.loads(named.pop("variables"))
    status, reason, checked = (
        named.pop(f"health_{part}") for part in ("status", "reason", "checked_at")
    )
    return {
        **_BLANK,
        **named,
        "url": f"{address}/mcp",
        "mcp_info": {"server_name": row["server_name"], "is_public": False},
        "mcp_access_groups": groups.split(", ") if groups else [],
        "env_vars": variables,
        "teams": [{"team_id": "team-0", "team_alias": "Team 0"}],
        "status": status,
        "health_check_reason": reason,
        "static_headers": {"X-Token": "${TOKEN}"} if variables else {},
        "last_health_check": checked,
    }


@app.get("/status")
def status() -> Response:
    """Return what each server needs from one user."""
    with engine.connect() as connection:
        rows = connection.execute(_STATUS, ME).all()
    return _json(
        [
            {
                "server_id": i,
                "server_name": n,
                "alias": a,
                "required": [{"name": v, "description": d, "is_set": bool(s)}],
                "missing_count": 1 - s,
                "setup_url": f"http://127.0.0.1:8000/credentials/{i}",
            }
            for i, n, a, v, d, s in rows
        ]
    )


@app.post("/save/<server_id>")
def save(server_id: str) -> Response:
    """Store one value, and return the result."""
    sealed = json.dumps(request.get_json()).encode()
    with engine.begin() as connection:
        connection.execute(
            _SAVE,
            ME | {"server_id": server_id, "sealed": sealed, "now": datetime.now(UTC).isoformat()},
        )
    return _json({"server_id": server_id, "missing_count": 0})


@app.post("/login")
def login() -> Any:
    """Check a password against its hash, as slowly as the portal."""
    with engine.connect() as connection:
        person = connection.execute(_PERSON, {"email": request.form["email"]}).one()
    hasher.verify(person.password_hash, request.form["password"])
    return redirect("/", 303)


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), content_type="application/json")
