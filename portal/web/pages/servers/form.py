"""The server form: its initial data, its template context and the changed fields."""

import json
from collections.abc import Mapping
from typing import Any

from flask import request

from portal.domain.servers import KEPT, URL_FIELDS, ServerFields
from portal.domain.variables import references
from portal.services.servers.stored import Stored
from portal.web.forms import logos
from portal.web.forms.servers import NOTHING, ServerForm
from portal.web.forms.typed import secret_modes


def add_row(form: ServerForm) -> None:
    """Add a row if its button was pressed without JavaScript."""
    rows = {"header": form.headers, "variable": form.variables, "env": form.env}.get(
        request.form.get("add", "")
    )
    if rows is not None:
        rows.append_entry()


def typed_before(stored: Stored) -> dict[str, Any]:
    """Return the initial form data of a stored server."""
    view = stored.view
    plain = (
        "server_name",
        "alias",
        "description",
        "instructions",
        "source_url",
        "command",
        "timeout",
        "is_byok",
        "byok_api_key_help_url",
        "allow_all_keys",
        "available_on_public_internet",
        "delegate_auth_to_upstream",
        "oauth_passthrough",
    )
    rules = view.token_validation
    return {
        **{name: getattr(view, name) for name in plain},
        "version": view.version,
        "logo": logos.chosen(view.mcp_info),
        "transport": "openapi" if view.spec_path and view.transport != "stdio" else view.transport,
        "auth_type": view.auth_type or "none",
        "oauth2_flow": view.oauth2_flow or "",
        "token_validation": json.dumps(rules, indent=2, ensure_ascii=False) if rules else "",
        "byok_description": "\n".join(view.byok_description),
        "extra_headers": "\n".join(view.extra_headers),
        "access_groups": list(view.mcp_access_groups),
        "headers": [{"name": name} for name in stored.headers],
        "env": [{"name": name} for name in stored.env],
        "variables": [
            {"name": v.name, "scope": v.scope, "description": v.description}
            for v in stored.variables
        ],
    }


def with_picture(form: ServerForm, stored: Stored | None) -> ServerFields:
    """Return the submitted fields, with `mcp_info` if the logo changed. Its other keys stay."""
    fields = form.fields()
    info = stored.view.mcp_info if stored else None
    if form.logo.data != logos.chosen(info):
        fields["mcp_info"] = logos.with_logo(info, form.logo.data)
    return fields


def form_context(
    form: ServerForm, stored: Stored | None, public: Mapping[str, Any] = NOTHING
) -> dict[str, Any]:
    """Return the template context of the server form; `public` as in `forget_sealed`."""
    known, uses = _stored_names(form, stored)
    declared = {row.form["name"].data for row in form.variables}
    users: dict[str, list[str]] = {}
    for row in form.headers:
        for name in uses.get(row.name, ()):
            users.setdefault(name, []).append(row.form["name"].data)
    return {
        "form": form,
        "forgotten": form.forget_sealed(public),
        "public_url": form.url.data if form.still_has("url", public) else "",
        "form_url": request.path,
        "modes": secret_modes(),
        "stored": known,
        "server": (
            {
                "server_id": stored.view.server_id,
                "name": stored.view.server_name or stored.view.server_id,
            }
            if stored
            else None
        ),
        "args_stored": bool(stored and stored.args_stored),
        "origins": stored.origins if stored else {},
        "header_uses": uses,
        "uses": users,
        "unknown": {row: [n for n in names if n not in declared] for row, names in uses.items()},
    }


def _stored_names(
    form: ServerForm, stored: Stored | None
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """Return the fields with a stored secret, by name, and the variables of each header row."""
    if stored is None:
        return {}, {row.name: references(row.form["value"].data or "") for row in form.headers}
    known: dict[str, Any] = dict(stored.set_at)
    known |= {"base_url": known["url"]} if "url" in known else {}
    uses: dict[str, tuple[str, ...]] = {}
    for row in form.headers:
        name = row.form["name"].data
        if name in stored.headers:
            known[f"{row.name}-value"] = None
        uses[row.name] = references(row.form["value"].data or "") or stored.headers.get(name, ())
    known |= {f"{row.name}-value": None for row in form.env if row.form["name"].data in stored.env}
    set_globals = {v.name for v in stored.variables if v.is_set}
    known |= {
        f"{row.name}-value": None for row in form.variables if row.form["name"].data in set_globals
    }
    return known, uses


def changed_fields(fields: ServerFields, stored: Stored) -> ServerFields:
    """Return the fields that differ from the stored server. Kept secrets are not a change."""
    view: dict[str, Any] = vars(stored.view)
    changes: dict[str, Any] = {}
    for name, value in fields.items():
        if name in URL_FIELDS:
            # The stored URL is not known here, only its origin.
            same = value is None and name not in stored.origins
        elif name in ("static_headers", "env"):
            names = tuple(stored.headers if name == "static_headers" else stored.env)
            same = (
                isinstance(value, dict)
                and tuple(value) == names
                and all(v is KEPT for v in value.values())
            )
        elif name == "env_vars":
            same = isinstance(value, list) and _same_variables(value, stored)
        elif name == "auth_type":
            same = (view[name] or "none") == value
        elif isinstance(value, list):
            same = list(view.get(name) or ()) == value
        else:
            same = name in view and name != "version" and (view[name] or None) == (value or None)
        if not same:
            changes[name] = value
    return ServerFields(**changes)  # type: ignore[typeddict-item, no-any-return]


def _same_variables(entries: list[Any], stored: Stored) -> bool:
    typed = [(e["name"], e["scope"], e["description"], e["value"] is KEPT) for e in entries]
    before = [(v.name, v.scope, v.description, v.is_set) for v in stored.variables]
    return typed == before and not any(e["value"] not in (None, KEPT) for e in entries)
