"""The plan of an import, entry by entry, and merging an entry with a stored server."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from portal.domain.destinations import Moved
from portal.domain.errors import InvalidInput, PortalError
from portal.domain.import_secrets import Share, variable_name
from portal.domain.importing import ImportDocument, ImportEntry, with_choices
from portal.domain.principals import Principal
from portal.domain.servers import KEPT, ServerFields, Transport, check_definition, origin_of
from portal.services.runtime import runtime_of
from portal.services.secrets.server_definition import opened
from portal.services.servers import kept_secrets, queries
from portal.services.servers.destinations import would_move
from portal.store.models import Server

_COMPARED = (
    "description",
    "instructions",
    "command",
    "timeout",
    "source_url",
    "auth_type",
    "allow_all_keys",
    "available_on_public_internet",
    "allowed_tools",
    "extra_headers",
)


_TYPEABLE = ("static_headers", "env", "env_vars", "credentials")


class State(StrEnum):
    """What the import would do with an entry."""

    NEW = "new"
    CHANGED = "changed"
    SKIPPED = "skipped"
    WRONG = "wrong"


@dataclass(frozen=True)
class FoundSecret:
    """A secret in the preview: its place, and the variable it could become; never its value."""

    place: str
    name: str
    variable: str
    is_bearer: bool


@dataclass(frozen=True)
class Planned:
    """An entry of the document, and what the import would do with it.

    `key` is unique in the plan.
    """

    number: int
    key: str
    name: str
    line: int
    state: State
    note: str
    transport: str
    target: str
    secrets: tuple[FoundSecret, ...]
    asked: tuple[str, ...]
    server_id: str | None
    moves: tuple[Moved, ...] = ()

    @property
    def typeable(self) -> tuple[str, ...]:
        """The moved secrets that can be entered again: not arguments, nor what users stored."""
        names = dict.fromkeys(move.secret for move in self.moves)
        return tuple(name for name in names if name.partition(".")[0] in _TYPEABLE)


@dataclass(frozen=True)
class Plan:
    """What an import would do."""

    kind: str
    rows: tuple[Planned, ...]

    def count(self, state: str) -> int:
        """Return the number of entries in a state."""
        return sum(row.state == state for row in self.rows)


def make_plan(session: Session, principal: Principal, document: ImportDocument) -> Plan:
    """Return what an import of `document` would do now. Checks no permission; its callers do."""
    known = _stored_by_name(session, document)
    seen: dict[str, int] = {}
    rows = []
    for number, entry in enumerate(document.entries):
        stored = known.get(entry.name, known.get(entry.name.casefold()))
        state, note = _judge(session, entry, stored, seen.get(entry.name.casefold()))
        if not entry.fault:
            seen.setdefault(entry.name.casefold(), entry.line)
        moves = (
            _moves(session, principal, stored, entry)
            if stored is not None and state is State.CHANGED
            else ()
        )
        rows.append(_planned(number, entry, state, note, stored, moves))
    return Plan(document.kind, tuple(rows))


def _judge(
    session: Session, entry: ImportEntry, stored: Server | None, twin_line: int | None
) -> tuple[State, str]:
    if entry.fault:
        return State.WRONG, entry.fault
    if twin_line is not None:
        return State.SKIPPED, f"It has the same name as the server on line {twin_line}."
    if stored is None:
        try:
            _check_as_new(session, entry.fields)
        except PortalError as error:
            return State.WRONG, error.message
        return State.NEW, ""
    if stored.origin == "config":
        return State.SKIPPED, "A server with this name is declared in the config file."
    if stored.approval_status != "active":
        return State.SKIPPED, "A server with this name is under review."
    differing = _differing(session, stored, entry.fields)
    if not differing:
        return State.SKIPPED, "An identical server with this name already exists."
    return (
        State.CHANGED,
        f"A server with this name already exists. Differences: {', '.join(differing)}.",
    )


def _check_as_new(session: Session, fields: ServerFields) -> None:
    runtime = runtime_of(session)
    check_definition(
        transport=fields.get("transport") or Transport.SSE,
        url=fields.get("url"),
        spec_path=fields.get("spec_path"),
        command=fields.get("command"),
        has_args=fields.get("args") is not None,
        stdio_enabled=runtime.stdio_enabled,
        stdio_commands=runtime.stdio_commands,
        no_sandbox=runtime.sandbox.refusal,
    )
    if fields.get("url") and origin_of(fields["url"]) is None:
        raise InvalidInput("The URL has no host.", field="url")


def _differing(session: Session, stored: Server, fields: ServerFields) -> list[str]:
    """Return the fields of an entry that differ from the stored server; secrets count by name."""
    definition = opened(session, stored)
    found = [
        name
        for name in _COMPARED
        if name in fields and _plain(fields[name]) != _plain(getattr(stored, name))  # type: ignore[literal-required]
    ]
    if fields.get("transport", stored.transport) != stored.transport:
        found.append("transport")
    found += [
        n for n in ("url", "spec_path") if fields.get(n) and fields[n] != definition.urls.get(n)
    ]
    if "args" in fields and list(fields["args"] or ()) != list(definition.args):
        found.append("args")
    if any(name not in definition.env for name in fields.get("env") or {}):
        found.append("env")
    headers = {name.lower() for name in definition.static_headers}
    signs_in = stored.auth_type not in (None, "none")
    for name in fields.get("static_headers") or {}:
        if name.lower() not in headers and not (signs_in and name.lower() == "authorization"):
            found.append("headers")
            break
    return found


def _plain(value: object) -> object:
    return None if not value or value == "none" else value


def _moves(
    session: Session, principal: Principal, stored: Server, entry: ImportEntry
) -> tuple[Moved, ...]:
    """Return the stored secrets that an entry would send to another host.

    Includes those that the entry repeats unchanged.
    """
    change = merged(stored, with_choices(entry, {}, Share.KEEP), entry.blank)
    try:
        return would_move(session, stored, kept_secrets.settled(session, principal, stored, change))
    except PortalError:
        return ()  # the import reports the error


def _planned(
    number: int,
    entry: ImportEntry,
    state: State,
    note: str,
    stored: Server | None,
    moves: tuple[Moved, ...],
) -> Planned:
    fields = entry.fields
    return Planned(
        number=number,
        key=entry.key,
        name=entry.name,
        line=entry.line,
        state=state,
        note=note,
        transport=(fields.get("transport") or Transport.SSE).value.upper() if fields else "",
        target=origin_of(fields.get("url") or fields.get("spec_path"))
        or fields.get("command")
        or "",
        secrets=tuple(
            FoundSecret(s.place, s.name, s.variable, s.prefix.lower() == "bearer ")
            for s in entry.secrets
        ),
        asked=entry.asked,
        server_id=stored.server_id if stored and state is State.CHANGED else None,
        moves=moves,
    )


def _stored_by_name(session: Session, document: ImportDocument) -> dict[str, Server]:
    """Return the stored servers by name and alias, as written and in lower case.

    An exact match takes precedence, because names can differ only in case.
    """
    wanted = {entry.name.casefold() for entry in document.entries if entry.name}
    name = func.lower(Server.server_name)
    alias = func.lower(Server.alias)
    query = select(Server).where(or_(name.in_(wanted), alias.in_(wanted))).options(*queries.PARTS)
    named = [
        (text, row)
        for row in session.scalars(query.order_by(Server.server_id))
        for text in (row.alias, row.server_name)
        if text
    ]
    return {text.casefold(): row for text, row in named} | dict(named)


def merged(stored: Server, fields: ServerFields, blank: tuple[str, ...]) -> ServerFields:
    """Return an entry merged into a stored server; omitted and blank values are kept."""
    wanted = cast(dict[str, Any], dict(fields))
    del wanted["server_name"]
    wanted["clear_secrets"] = []  # masked values are kept
    names = {
        part: {s.name for s in stored.secrets if s.field == part}
        for part in ("static_headers", "env")
    }
    kept = names["static_headers"] & set(blank)
    if "static_headers" in wanted:
        sent = {
            name: KEPT if name in kept else value
            for name, value in wanted["static_headers"].items()
        }
        wanted["static_headers"] = {**dict.fromkeys(names["static_headers"], KEPT), **sent}
    if "env" in wanted:
        sent = {n: KEPT if v == "" and n in names["env"] else v for n, v in wanted["env"].items()}
        wanted["env"] = {**dict.fromkeys(names["env"], KEPT), **sent}
    if "env_vars" in wanted:
        wanted["env_vars"] = _merged_variables(
            stored, wanted["env_vars"], {variable_name(name) for name in kept}
        )
    return cast(ServerFields, wanted)


def with_typed(stored: Server, change: ServerFields, typed: Mapping[str, str]) -> ServerFields:
    """Return a change with new values for stored secrets, named as in a refusal."""
    wanted = cast(dict[str, Any], dict(change))
    for secret, value in typed.items():
        field, _, name = secret.partition(".")
        if field == "env_vars":
            declared = wanted.get("env_vars") or _merged_variables(stored, [], set())
            wanted["env_vars"] = [
                {**v, "value": value} if v["name"] == name else v for v in declared
            ]
        else:
            of_field = [s.name for s in stored.secrets if s.field == field]
            known = [] if field == "credentials" else of_field
            wanted[field] = {**(wanted.get(field) or dict.fromkeys(known, KEPT)), name: value}
    return cast(ServerFields, wanted)


def _merged_variables(
    stored: Server, sent: list[dict[str, Any]], unwanted: set[str]
) -> list[dict[str, Any]]:
    """Merge a document's variables into the declared ones.

    `unwanted` are variables of headers that stay unchanged.
    """
    declared = {
        v.name: {"name": v.name, "scope": v.scope, "description": v.description, "value": KEPT}
        for v in stored.variables
    }
    for entry in sent:
        known = declared.get(entry["name"])
        if known is None and entry["name"] in unwanted and entry.get("value") is None:
            continue
        keeps = (
            known is not None
            and entry.get("value") is None
            and known["scope"] == entry.get("scope")
        )
        declared[entry["name"]] = {**entry, "value": KEPT} if keeps else dict(entry)
    return list(declared.values())
