"""A definition under test made whole with what is stored of the server that it is about.

A stored secret is never combined with an address that was just typed (`1-system.md`, 3): where the definition leads to
another host, or sends its client secret to another token endpoint, everything secret has to be sent again.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from portal.domain.errors import Conflict, InvalidRequest
from portal.domain.servers import KEPT, URL_FIELDS, ServerFields, Transport, check_values, origin_of
from portal.services.inner.definitions import Definition, opened
from portal.services.inner.writing import check_result, set_names
from portal.store.models import Server

_NO_SECRETS = frozenset({"scopes"})


def whole(session: Session, stored: Server | None, fields: ServerFields, *, as_change: bool) -> dict[str, Any]:
    """`fields` with what is kept of `stored`, ready to be written as JSON: no `KEPT` is left in it.

    `as_change`: they are those of a PUT, so that URLs that are not named stay. Without it they are those of a POST,
    which inherits the stored credentials where it brings no secret (TMP-03, TMP-16). Raises `Conflict`
    (`credentials_would_move`) and `InvalidRequest` where a stored secret would go to another host.
    """
    sent: dict[str, Any] = dict(fields)
    old = opened(session, stored, credentials=True) if stored is not None else Definition()
    typed = {name: sent[name] for name in URL_FIELDS if sent.get(name) not in (None, KEPT)}
    urls = ({**old.urls, **typed} if as_change else typed) if stored is not None else typed
    urls = {name: url for name, url in urls.items() if sent.get(name, "") is not None}
    moved = stored is not None and _moved(old.urls, urls, typed)
    whole = {name: value for name, value in sent.items() if name not in URL_FIELDS} | urls
    for name, values in (("static_headers", old.static_headers), ("env", old.env)):
        if sent.get(name):
            whole[name] = {key: _kept(values, key, value, name, moved) for key, value in sent[name].items()}
    if sent.get("env_vars"):
        whole["env_vars"] = [_variable(entry, old, moved) for entry in sent["env_vars"]]
    whole["credentials"] = _credentials(stored, old, sent, moved, as_change=as_change)
    return whole


def checked(session: Session, server_id: str, fields: ServerFields, contents: dict[str, Any]) -> dict[str, Any]:
    """A whole definition, held to the rules of one that is saved, with its names as they would be stored.

    A command is refused: it is never started for something that nobody saved (R-STDIO-03).
    """
    check_values(fields)
    if fields.get("transport") is Transport.STDIO:
        raise InvalidRequest(
            "A command is not started before it is saved.", code="stdio_not_allowed", field="transport"
        )
    row = Server(server_id=server_id)
    set_names(row, fields)
    check_result(session, row, ServerFields(**contents))  # type: ignore[typeddict-item]
    return {**contents, "server_name": row.server_name, "alias": row.alias}


def _credentials(
    stored: Server | None, old: Definition, sent: Mapping[str, Any], moved: bool, *, as_change: bool
) -> dict[str, Any]:
    given = {name: value for name, value in (sent.get("credentials") or {}).items() if value is not KEPT}
    brings_secrets = any(value for name, value in given.items() if name not in _NO_SECRETS)
    same_type = stored is not None and (sent.get("auth_type") or stored.auth_type) == stored.auth_type
    inherits = same_type and old.credentials and (as_change or not brings_secrets)
    if inherits and moved:
        if brings_secrets:
            inherits = False
        else:
            raise Conflict(
                "The stored credentials would be sent to another host. Send them again.",
                code="credentials_would_move", field="url",
            )  # fmt: skip
    found = {**(old.credentials if inherits else {}), **given}
    return {name: value for name, value in found.items() if value not in (None, "")}


def _moved(old: Mapping[str, str], new: Mapping[str, str], typed: Mapping[str, str]) -> bool:
    if any(origin_of(new.get(name)) != origin_of(old.get(name)) for name in ("url", "spec_path")):
        return True
    return "token_url" in typed and origin_of(typed["token_url"]) != origin_of(old.get("token_url"))


def _kept(stored: Mapping[str, str], name: str, value: object, field: str, moved: bool) -> object:
    if value is not KEPT:
        return value
    if moved:
        raise InvalidRequest(
            "The address is at another host, so stored values are not sent there. Type them again.", field=field
        )
    return stored.get(name, "")


def _variable(entry: Mapping[str, Any], old: Definition, moved: bool) -> dict[str, Any]:
    return {**entry, "value": _kept(old.globals, entry["name"], entry.get("value"), "env_vars", moved)}
