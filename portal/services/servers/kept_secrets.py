"""The secrets in an API request: which to keep, which to clear, and which are new.

A client that reads a server and writes it back sends `null`, `""` or a mask in place of a secret.
Such a value means *keep*: the field is left out of the change or becomes `KEPT`, so that nothing
stored is lost and no mask is sent upstream. `clear_secrets` clears whole fields (`url`,
`credentials`) or single entries (`static_headers.X-Key`). The forms of pages have their own way to
keep, replace and clear; they send no `clear_secrets`, and their fields are not changed here.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from sqlalchemy.orm import Session

from portal.domain.errors import InvalidInput
from portal.domain.masks import (
    looks_masked,
    looks_masked_argument,
    looks_masked_url,
    unmasked_arguments,
)
from portal.domain.principals import Principal
from portal.domain.servers import CREDENTIAL_NAMES, KEPT, URL_FIELDS, ServerFields, origin_of
from portal.domain.variables import Scope
from portal.services.runtime import runtime_of
from portal.services.secrets.bindings import hint
from portal.services.secrets.server_definition import opened
from portal.services.servers import queries
from portal.store.models import Server

SAYS = "clear_secrets"
"""The field that every API body includes; with it, empty fields and masks mean *keep*."""

_MAPS = ("static_headers", "env")
_WHOLE = (*URL_FIELDS, "args", *_MAPS, "env_vars", "credentials")
# Credentials that are not secret: null clears them, as in every other field.
_NO_SECRETS = frozenset({"scopes"})


def without_masks(fields: ServerFields) -> ServerFields:
    """Return the fields whose rules can be checked without knowing what is stored."""
    if SAYS not in fields:
        return fields
    found: dict[str, Any] = dict(fields)
    for name in URL_FIELDS:
        if isinstance(found.get(name), str) and looks_masked_url(found[name]):
            del found[name]
    for name in _MAPS:
        if found.get(name):
            found[name] = {key: value or "" for key, value in found[name].items()}
    return cast(ServerFields, found)


def settled(
    session: Session,
    principal: Principal,
    row: Server | None,
    fields: ServerFields,
    *,
    as_change: bool = True,
) -> ServerFields:
    """Return the change that `fields` ask for, given what is stored of `row`.

    `row` is None for a new server. `as_change` leaves out what stays the same. Without it, kept
    values are `KEPT`, for a definition that inherits only named values. Raises `InvalidInput`
    naming the field for a mask where nothing is stored, and for an entry of `clear_secrets` that
    names no secret.
    """
    if SAYS not in fields:
        return fields
    change = _Change(session, row, dict(fields))
    change.settle(as_change=as_change)
    if (
        row is not None
        and as_change
        and queries.reads_verbatim(principal)
        and not runtime_of(session).write_only_globals
    ):
        change.drop_equal(session, row)
    return cast(ServerFields, change.fields)


class _Change:
    """A change while it is worked out from the fields that were sent."""

    def __init__(self, session: Session, row: Server | None, fields: dict[str, Any]) -> None:
        self.fields, self._row, self._session = fields, row, session
        self._clear = dict.fromkeys(fields.pop(SAYS) or ())
        self._stored: dict[str, list[str]] = {name: [] for name in _WHOLE}
        if row is None:
            return
        for secret in sorted(row.secrets, key=lambda secret: secret.position or 0):
            self._stored.setdefault(secret.field, []).append(secret.name)
        self._stored["env_vars"] = [
            v.name for v in row.variables if v.scope == Scope.GLOBAL and v.sealed is not None
        ]
        if "auth_type" in fields and (fields["auth_type"] or None) != row.auth_type:
            self._stored["credentials"] = []  # they end with the type

    def settle(self, *, as_change: bool) -> None:
        """Turn each field with secrets into what to do with it."""
        self._check_clear()
        for name in URL_FIELDS:
            self._settle_url(name)
        self._settle_args()
        for name in _MAPS:
            self._settle_map(name)
        self._settle_variables()
        self._settle_credentials(as_change=as_change)
        if as_change and self._row is not None:
            self._drop_kept(self._row)

    def _drop_kept(self, row: Server) -> None:
        """Leave out fields in which every value is kept and nothing else differs."""
        for name in ("transport", "command"):  # naming one of these would count as a change
            if name in self.fields and self.fields[name] == getattr(row, name):
                del self.fields[name]
        info = self.fields.get("mcp_info")
        if info is not None and _listing_aside(info) == _listing_aside(row.mcp_info or {}):
            del self.fields["mcp_info"]  # `is_public` is shown here but set elsewhere
        for name in _MAPS:
            sent = self.fields.get(name)
            if sent is None or list(sent) != self._stored[name]:
                continue
            if all(v is KEPT for v in sent.values()):
                del self.fields[name]
        sent = self.fields.get("env_vars")
        if self._cleared("env_vars"):
            return
        if sent is None or not all(e.get("value") in (None, "", KEPT) for e in sent):
            return
        if self._declared(sent) == [(v.name, v.scope, v.description) for v in row.variables]:
            del self.fields["env_vars"]

    def drop_equal(self, session: Session, row: Server) -> None:
        """Treat values equal to the stored ones as kept, for callers who may read them.

        A client that reads a server, changes its address and writes it back has sent no new values:
        the stored ones are not sent to the new host until `keep_credentials` says so.
        """
        old = opened(session, row)
        fields = self.fields
        for name in URL_FIELDS:
            if fields.get(name) and fields[name] == old.urls.get(name):
                del fields[name]
        args = fields.get("args")
        if args is not None and list(args) == list(old.args) and self._stored["args"]:
            del fields["args"]
        for name in _MAPS:
            if fields.get(name) is not None:
                stored = dict(getattr(old, name))
                spelled = {k.casefold(): k for k in stored} if name == "static_headers" else {}
                known = {
                    k: k if k in stored else spelled.get(k.casefold(), k) for k in fields[name]
                }
                fields[name] = {
                    known[k] if _same(v, stored.get(known[k])) else k: (
                        KEPT if _same(v, stored.get(known[k])) else v
                    )
                    for k, v in fields[name].items()
                }
        if fields.get("env_vars") is not None:
            fields["env_vars"] = [_as_kept(entry, old.globals) for entry in fields["env_vars"]]
        self._drop_kept(row)

    @staticmethod
    def _declared(entries: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        return [
            (e["name"], str(e.get("scope") or Scope.GLOBAL.value), e.get("description"))
            for e in entries
        ]

    def _check_clear(self) -> None:
        for entry in self._clear:
            field, dot, name = entry.partition(".")
            known = {
                "credentials": set(CREDENTIAL_NAMES),
                "env_vars": (
                    {v.name for v in self._row.variables} if self._row is not None else set()
                ),
                **{of: set(self._stored[of]) for of in _MAPS},
            }
            if field not in _WHOLE or (dot and name not in known.get(field, ())):
                raise InvalidInput(
                    f"This server has no secret called “{entry[:80]}”. Use a field"
                    f" ({', '.join(_WHOLE)}) or one of its entries, for example"
                    " static_headers.X-Key.",
                    field=SAYS,
                )

    def _cleared(self, field: str) -> set[str]:
        """Return the entries of a field to clear."""
        return {entry.partition(".")[2] for entry in self._clear if entry.startswith(f"{field}.")}

    def _refuse_both(self, field: str, value: object) -> None:
        if value not in (None, "", [], {}) and not (
            isinstance(value, str) and looks_masked_url(value)
        ):
            raise InvalidInput("Either send a value or clear it, not both.", field=field)

    def _settle_url(self, name: str) -> None:
        value = self.fields.get(name)
        if name in self._clear:
            self._refuse_both(name, value)
            self.fields[name] = None
        elif name not in self.fields:
            return
        elif not value:
            if self._row is not None:
                del self.fields[name]
        elif looks_masked_url(value):
            same = looks_masked(value) or (
                self._row is not None and origin_of(value) == hint(self._row, name)
            )
            if not (self._stored[name] and same):
                raise _masked(name)
            del self.fields[name]

    def _settle_args(self) -> None:
        sent = self.fields.get("args")
        if "args" in self._clear:
            self._refuse_both("args", sent)
            self.fields["args"] = None
        elif "args" not in self.fields:
            return
        elif not sent:
            hides = runtime_of(self._session).write_only_globals
            if self._row is not None and (sent is None or hides or not self._stored["args"]):
                del self.fields["args"]
        elif any(looks_masked_argument(argument) for argument in sent):
            old = list(opened(self._session, self._row).args) if self._row is not None else []
            if unmasked_arguments(sent, old) != old:
                raise _masked("args")
            del self.fields["args"]

    def _settle_map(self, field: str) -> None:
        if field in self._clear:
            self._refuse_both(field, self.fields.get(field))
            self.fields[field] = {}
            return
        cleared = self._cleared(field)
        stored = self._stored[field]
        if self.fields.get(field) is None:
            self.fields.pop(field, None)
            if not cleared:
                return
            self.fields[field] = dict.fromkeys(stored, KEPT)
        spelled = {name.casefold(): name for name in stored} if field == "static_headers" else {}
        found: dict[str, Any] = {}
        for name, value in self.fields[field].items():
            known = name if name in stored else spelled.get(name.casefold())
            if known in cleared:
                if value and value is not KEPT and not looks_masked(value):
                    raise InvalidInput("Either send an entry or clear it, not both.", field=field)
            elif value is KEPT:
                found[name] = value
            elif not value or looks_masked(value):
                if known is not None:
                    found[known] = KEPT
                elif value:
                    raise _masked(field)
                elif value is not None:
                    found[name] = value
            else:
                found[name] = value
        self.fields[field] = found

    def _settle_variables(self) -> None:
        if "env_vars" in self._clear:
            self._refuse_both("env_vars", self.fields.get("env_vars"))
            self.fields["env_vars"] = []
            return
        cleared = self._cleared("env_vars")
        stored = self._stored["env_vars"]
        if self.fields.get("env_vars") is None:
            self.fields.pop("env_vars", None)
            if not cleared or self._row is None:
                return
            self.fields["env_vars"] = [
                {"name": v.name, "scope": v.scope, "description": v.description, "value": KEPT}
                for v in self._row.variables
            ]
        self.fields["env_vars"] = [
            self._variable(dict(e), cleared, stored) for e in self.fields["env_vars"]
        ]

    @staticmethod
    def _variable(entry: dict[str, Any], cleared: set[str], stored: list[str]) -> dict[str, Any]:
        name = entry["name"]
        value = entry.get("value")
        if name in cleared:
            if value and value is not KEPT and not looks_masked(value):
                raise InvalidInput("Either send an entry or clear it, not both.", field="env_vars")
            entry["value"] = None
        elif entry.get("scope") == Scope.USER.value:
            entry["value"] = None
        elif value is not KEPT and (not value or looks_masked(value)):
            if name in stored:
                entry["value"] = KEPT
            elif value:
                raise _masked("env_vars")
        return entry

    def _settle_credentials(self, *, as_change: bool) -> None:
        if "credentials" in self._clear:
            self._refuse_both("credentials", self.fields.get("credentials"))
            self.fields["credentials"] = (
                None if as_change else dict.fromkeys(self._stored["credentials"])
            )
            return
        cleared = self._cleared("credentials")
        sent = self.fields.pop("credentials", None)
        found: dict[str, Any] = dict.fromkeys(sorted(cleared))
        for name, value in (sent or {}).items():
            where = f"credentials.{name}"
            masked = isinstance(value, str) and looks_masked(value)
            if value is None and name in _NO_SECRETS:
                found[name] = None
            elif value in (None, "") or masked:
                if masked and name not in self._stored["credentials"] and name not in cleared:
                    raise _masked(where)
            elif name in cleared:
                raise InvalidInput("Either send a value or clear it, not both.", field=where)
            else:
                found[name] = value
        if found:
            self.fields["credentials"] = found


def _same(sent: object, stored: str | None) -> bool:
    return sent is KEPT or (stored is not None and sent == stored)


def _as_kept(entry: dict[str, Any], stored: Mapping[str, str]) -> dict[str, Any]:
    is_global = (entry.get("scope") or Scope.GLOBAL.value) == Scope.GLOBAL.value
    if is_global and _same(entry.get("value"), stored.get(entry["name"])):
        return {**entry, "value": KEPT}
    return entry


def _listing_aside(info: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in info.items() if name != "is_public"}


def _masked(field: str) -> InvalidInput:
    return InvalidInput(
        "This looks like a masked value, but no value is stored. Send the actual value.",
        field=field,
    )
