"""The only way to write a server definition, so that no stored secret is sent or dropped unasked.

Every change, and every trial of a change, calls `write_definition` with the caller's decision about
stored secrets. `domain/destinations.py` determines which of them would move; this module refuses
the change, sends the secrets to the new host, or deletes them, and ends tokens issued for the old
host. A change without a decision is refused. Secrets that are not settled here stay bound to the
old destination, so that code that bypasses this module cannot send them anywhere else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain import destinations
from portal.domain.destinations import (
    AUTHORIZE,
    COMMAND,
    COMMAND_LINE,
    EXCHANGE,
    PARTS_OF,
    REGISTRATION,
    TOKEN,
    Held,
    Moved,
    Route,
)
from portal.domain.errors import Conflict, InvalidInput, InvalidRequest
from portal.domain.oauth import AuthorizationServer
from portal.domain.oauth_origins import split_at
from portal.domain.principals import Principal
from portal.domain.servers import KEPT, ServerFields, origin_of
from portal.services.oauth_client import minted_tokens
from portal.services.oauth_client.minted_tokens import MintedFor, minted_for
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings, user_values
from portal.services.secrets.server_definition import (
    global_of,
    has_part,
    mark_required,
    route_from,
    route_of,
    value_of,
    write_parts,
)
from portal.services.secrets.token_store import needs_a_person
from portal.services.servers.secret_moves import Settled, move_conflict, secret_name
from portal.store.models import Server, ServerSecret, ServerVariable
from portal.store.oauth_tables import OAuthClientRegistration, ServerAuthorization
from portal.store.vault import Place

_EVERY_PART = tuple(dict.fromkeys(part for parts in PARTS_OF.values() for part in parts))
_OF_PROVIDERS = (AUTHORIZE, TOKEN, EXCHANGE, REGISTRATION)
_READABLE = ("static_headers", "env", "env_vars", "args")
_CLIENT = ("client_id", "client_secret")
_NOT_COPIED = ("mcp_access_groups", "server_name", "alias", "version", "server_id")


@dataclass(frozen=True)
class Said:
    """The decision about stored secrets that a change would move.

    `keep` is None for no decision, True to send them to the new host, False to delete them.
    `may_carry_values` tells whether True also applies to values that the caller may not read. A
    `trial` ignores what users stored, because a trial never sends it to another destination.
    """

    keep: bool | None = None
    may_carry_values: bool = True
    trial: bool = False


_NOTHING = Said()


@dataclass(frozen=True)
class _Before:
    """A row before a change: where it led, and what it held."""

    route: Route
    secrets: Mapping[tuple[str, str], tuple[bytes, bytes | None, Place, Place]] = field(repr=False)
    globals: Mapping[str, tuple[bytes, bytes | None]] = field(repr=False)
    personal: str
    auth_type: str | None
    minted: MintedFor = field(repr=False)


def said_by(session: Session, principal: Principal, fields: ServerFields) -> Said:
    """Return the decision that `fields` contain.

    If global values are write-only, only the operator can send them to another host: anyone else
    could read them at a host of their own. Raises `Forbidden` for a key that may not send secrets
    elsewhere.
    """
    if fields.get("keep_credentials"):
        authz.require(principal, Action.SECRET_CARRY)
    may_carry = not runtime_of(session).write_only_globals or authz.is_operator(principal)
    return Said(fields.get("keep_credentials"), may_carry)


def write_definition(
    session: Session, row: Server, fields: ServerFields, said: Said = _NOTHING
) -> Settled:
    """Write the given fields to the row, and settle what happens to stored secrets.

    Raises `Conflict` (`credentials_would_move`) listing each secret that would be sent to another
    host, unless `said` decides about them. The caller must then roll back its savepoint or
    transaction.
    """
    existed = bool(row.secrets or row.variables or row.address or row.command)
    if not existed:
        write_parts(session, row, fields)
        route = route_of(session, row)
        refuse_mixed(row, route)
        _bind_new(session, row, route)
        return Settled(said.keep)
    bind(session, row)
    before = _before(session, row)
    sent = frozenset(fields)
    registered = _registers_itself(row)
    fields = _without_same_args(row, before, fields)
    write_parts(session, row, fields)
    settled = _settle(session, row, before, fields, said, sent)
    after = route_of(session, row)
    if not registered or any(before.route.key(part) != after.key(part) for part in _OF_PROVIDERS):
        refuse_mixed(row, after)  # one that was so before is refused when it is used
    return settled


def refuse_mixed(row: Server, route: Route) -> None:
    """Raise `InvalidRequest` (`mixed_providers`) if sign-in addresses belong to different hosts.

    The portal would register at one host and send what it gets there to another: its client secret,
    users' authorization codes, or their tokens.
    """
    if not _registers_itself(row):
        return
    server = AuthorizationServer(
        issuer="",
        authorization_endpoint=route.authorization_url or "",
        token_endpoint=route.token_url or "",
        registration_endpoint=route.registration_url or "",
    )
    split = split_at(server, is_typed=True) or split_at(server, route.exchange or "", is_typed=True)
    if split is not None:
        field_name, called, origin = split
        raise InvalidRequest(
            f"The portal would register at {route.registration_url}, but the {called} is at"
            f" {origin}. The portal does not send credentials from one host to another. Enter"
            " addresses of a single provider, or register the portal there manually and enter"
            " its client ID.",
            code="mixed_providers",
            field=field_name,
        )


def _registers_itself(row: Server) -> bool:
    """Return whether users sign in with a client that the portal registers itself."""
    is_typed = any((s.field, s.name) == ("credentials", "client_id") for s in row.secrets)
    return needs_a_person(row) and has_part(row, "registration_url") and not is_typed


def would_move(session: Session, row: Server, fields: ServerFields) -> tuple[Moved, ...]:
    """Return the stored secrets that a change would move. Writes nothing."""
    return write_definition(session, copy_of(row), copied(fields), Said(keep=True)).moved


def copy_of(row: Server) -> Server:
    """Copy a stored server and its parts outside the session, to try a change on."""
    copy = Server(**_columns(row))
    copy.secrets = [ServerSecret(**_columns(secret)) for secret in row.secrets]
    copy.variables = [ServerVariable(**_columns(variable)) for variable in row.variables]
    return copy


def tried(session: Session, stored: Server, fields: ServerFields) -> Server:
    """Return a copy of a stored server with a change applied, to try it out. Writes nothing.

    Stored secrets are used only for their current destination; `keep_credentials: false` leaves out
    those that would move. To send them to another host, the change has to be saved first, so that
    the audit log records it. Raises `Conflict` (`credentials_would_move`).
    """
    copy = copy_of(stored)
    keep = False if fields.get("keep_credentials") is False else None
    try:
        write_definition(session, copy, copied(fields), Said(keep, trial=True))
    except Conflict as error:
        raise Conflict(
            f"{error.message.split(' Send new values')[0]} The address is on another host, and a"
            " test does not send stored values there. Enter them again to test this change, or"
            " save the change first.",
            code=error.code,
            field=error.field,
            **error.extra,
        ) from None
    return copy


def copied(fields: ServerFields) -> ServerFields:
    """Return the fields of a change that a copy takes, without those stored in other tables."""
    return cast(
        ServerFields, {name: value for name, value in fields.items() if name not in _NOT_COPIED}
    )


def bind(session: Session, row: Server) -> bool:
    """Bind secrets of an older version to the current destination; return whether any were."""
    unbound = [s for s in row.secrets if s.bound is None]
    globals_ = [v for v in row.variables if v.bound is None and v.sealed is not None]
    if unbound or globals_:
        _bind_new(session, row, route_of(session, row))
    return bool(unbound or globals_)


def has_registered_client(session: Session, row: Server) -> bool:
    """Return whether the portal registered a client at a server's authorization server."""
    registered = select(OAuthClientRegistration.issuer).where(
        OAuthClientRegistration.server_id == row.server_id
    )
    return session.scalar(registered.limit(1)) is not None


def _settle(
    session: Session,
    row: Server,
    before: _Before,
    fields: ServerFields,
    said: Said,
    sent: frozenset[str],
) -> Settled:
    """Settle what moves after `fields` were written.

    `sent` names the fields that the caller sent, including arguments equal to the stored ones: a
    caller who sends them knows them.
    """
    vault = runtime_of(session).vault
    stays = [
        s for s in row.secrets if before.secrets.get((s.field, s.name), (None,))[0] == s.sealed
    ]
    args = before.route.args if any(s.field == "args" for s in stays) else None
    after = route_from(vault, row, row.secrets, args=args)
    dropped = _dropped(before, after, fields, said, stays)
    stays = [s for s in stays if s not in dropped]
    unsent = [s for s in stays if s.field == "env" or (s.field == "args" and "args" not in sent)]
    moves, people = _moves(session, row, before, after, stays, of_people=not said.trial)
    if runtime_of(session).write_only_globals and (said.trial or not said.may_carry_values):
        moves = (*moves, *_beside_others(row, before, after, unsent, moves))
    if moves and said.keep is None:
        raise move_conflict(moves, fields, people)
    if moves and said.keep and not said.may_carry_values:
        _refuse_unreadable(moves, fields, people)
    texts = {(s.field, s.name): _text_before(session, before, s) for s in stays}
    values = {
        v.name: _global_before(session, row, before, v)
        for v in row.variables
        if v.sealed is not None
    }
    row.secrets = [s for s in row.secrets if s not in dropped]
    if moves and not said.keep:
        _forget(session, row, moves)
    _rebind(session, row, before, after, texts, values)
    ended = _end_minted(session, row, before, after, fields, moves, said)
    return Settled(
        said.keep,
        moves,
        tuple(secret_name(s) for s in dropped),
        people,
        ended,
        _auth_changed(before, fields),
    )


def _before(session: Session, row: Server) -> _Before:
    route = route_of(session, row)
    return _Before(
        route=route,
        secrets={
            (s.field, s.name): (
                s.sealed,
                s.bound,
                bindings.of_secret(row, s.field, s.name),
                bindings.of_bound_secret(row, s.field, s.name, route),
            )
            for s in row.secrets
        },
        globals={v.name: (v.sealed, v.bound) for v in row.variables if v.sealed is not None},
        personal=bindings.destination_of(row),
        auth_type=row.auth_type,
        minted=minted_for(session, row),
    )


def _without_same_args(row: Server, before: _Before, fields: ServerFields) -> ServerFields:
    """Drop arguments that equal the stored ones for the same command; they are no change."""
    args = fields.get("args")
    if args is None or not has_part(row, "args"):
        return fields
    same_command = "command" not in fields or fields["command"] == before.route.command
    if not same_command or list(args) != list(before.route.args):
        return fields
    return cast(ServerFields, {name: value for name, value in fields.items() if name != "args"})


def _auth_changed(before: _Before, fields: ServerFields) -> bool:
    return "auth_type" in fields and (fields["auth_type"] or "none") != (before.auth_type or "none")


def _dropped(
    before: _Before, after: Route, fields: ServerFields, said: Said, stays: list[ServerSecret]
) -> list[ServerSecret]:
    """Return the stored credentials that end because the authentication type changes.

    They end if new credentials replace them, or if they would not be sent to another host.
    Otherwise the change has to include a decision about them.
    """
    if not _auth_changed(before, fields) or said.keep:
        return []
    stored = [s for s in stays if s.field == "credentials"]
    brings = any(v for v in (fields.get("credentials") or {}).values() if v is not KEPT)
    moves = destinations.moved(before.route, after, [Held(secret_name(s)) for s in stored])
    return stored if brings or not moves else []


def _moves(
    session: Session,
    row: Server,
    before: _Before,
    after: Route,
    stays: list[ServerSecret],
    *,
    of_people: bool,
) -> tuple[tuple[Moved, ...], int]:
    """Return the stored secrets that move, and how many users stored any of them."""
    if all(before.route.key(part) == after.key(part) for part in _EVERY_PART):
        return (), 0
    held = [Held(secret_name(s)) for s in stays]
    for variable in row.variables:
        if (
            variable.sealed is not None
            and before.globals.get(variable.name, (None,))[0] == variable.sealed
        ):
            held.append(Held(f"env_vars.{variable.name}"))
    if of_people and has_registered_client(session, row):
        held.append(Held("client_registration"))
    holders = user_values.holders(session, row) if of_people else {}
    held += [Held(secret, len(people)) for secret, people in holders.items() if people]
    known = session.get(ServerAuthorization, row.server_id)
    endpoint = known.found.get("server", {}).get("token_endpoint") if known is not None else None
    found = replace(
        before.route, discovered=origin_of(endpoint) or origin_of(known.issuer) if known else None
    )
    moves = destinations.moved(found, after, held)
    moving = {m.secret for m in moves}
    return moves, len(
        set().union(*(people for secret, people in holders.items() if secret in moving))
    )


def _beside_others(
    row: Server, before: _Before, after: Route, unsent: list[ServerSecret], moves: tuple[Moved, ...]
) -> tuple[Moved, ...]:
    """Return stored variables and arguments of a command whose other environment variables change.

    A caller who may not read them could add a variable that makes the command reveal them. They are
    checked even while the server uses another transport, because it may become a command again.
    """
    were = {name: kept[0] for (of, name), kept in before.secrets.items() if of == "env"}
    are = {s.name: s.sealed for s in row.secrets if s.field == "env"}
    if were == are:
        return ()
    named = {m.secret for m in moves}
    command = after.label(COMMAND)
    return tuple(
        Moved(secret_name(s), command, f"{command}, with other variables", COMMAND_LINE)
        for s in unsent
        if secret_name(s) not in named
    )


def _refuse_unreadable(moves: tuple[Moved, ...], fields: ServerFields, people: int) -> None:
    """Refuse to send values that the caller may not read to a host where they could."""
    unreadable = tuple(m for m in moves if m.secret.partition(".")[0] in _READABLE)
    if unreadable:
        raise move_conflict(
            unreadable,
            fields,
            people,
            why=(
                "These values are write-only on this portal, so they cannot be sent to another"
                " host. Enter them again, or set keep_credentials to false to delete them."
                " Arguments must be entered again."
            ),
        )


def _forget(session: Session, row: Server, moves: Iterable[Moved]) -> None:
    names = {m.secret for m in moves}
    if "args" in names:
        raise InvalidInput("The arguments belong to the command. Send them again.", field="args")
    row.secrets = [s for s in row.secrets if secret_name(s) not in names]
    for variable in row.variables:
        if f"env_vars.{variable.name}" in names:
            variable.sealed = variable.bound = None
    mark_required(row)
    if not inspect(row).transient:
        for name in names:
            if name.startswith("people."):
                user_values.delete_values(session, row, name)


def _rebind(
    session: Session,
    row: Server,
    before: _Before,
    after: Route,
    texts: Mapping[tuple[str, str], str | None],
    values: Mapping[str, str | None],
) -> None:
    """Seal the remaining secrets for their new destination, and new secrets for the first time."""
    vault = runtime_of(session).vault
    for secret in row.secrets:
        key = (secret.field, secret.name)
        if key not in texts:
            continue
        text, (_, _, old, old_bound) = texts[key], before.secrets[key]
        if text is None:
            continue  # unreadable values count as not set
        place = bindings.of_secret(row, *key)
        bound = bindings.of_bound_secret(row, *key, after)
        if place != old:
            secret.sealed = vault.seal(text, place)
        if bound != old_bound or secret.bound is None:
            secret.bound = vault.seal(text, bound)
    for variable in row.variables:
        text = values.get(variable.name)
        if variable.sealed is not None and text is not None:
            place = bindings.of_bound_global(row, variable.name, after)
            if variable.bound is None or place != bindings.of_bound_global(
                row, variable.name, before.route
            ):
                variable.bound = vault.seal(text, place)
    _bind_new(session, row, after)
    if not inspect(row).transient and before.personal != bindings.destination_of(row):
        user_values.reseal_all(session, row, before.personal)


def _bind_new(session: Session, row: Server, route: Route) -> None:
    """Bind secrets that have no bound form yet: new ones, and those of older versions."""
    vault = runtime_of(session).vault
    for secret in row.secrets:
        if secret.bound is None and (text := value_of(vault, row, secret, route)) is not None:
            secret.bound = vault.seal(
                text, bindings.of_bound_secret(row, secret.field, secret.name, route)
            )
    for variable in row.variables:
        if variable.bound is None and variable.sealed is not None:
            text = global_of(vault, row, variable, route)
            if text is not None:
                variable.bound = vault.seal(
                    text, bindings.of_bound_global(row, variable.name, route)
                )


def _end_minted(
    session: Session,
    row: Server,
    before: _Before,
    after: Route,
    fields: ServerFields,
    moves: tuple[Moved, ...],
    said: Said,
) -> int:
    """End tokens issued for another destination; return how many more users have to sign in again.

    Users counted in `moves` are not included.
    """
    if inspect(row).transient:
        return 0
    now_minted = minted_for(session, row)
    moves_registration = "client_registration" in {m.secret for m in moves}
    if before.minted.people != now_minted.people or _auth_changed(before, fields):
        # A stored client stays with the issuer discovered for it, until it is sent to another host.
        signs_in = any(s.field == "credentials" and s.name in _CLIENT for s in row.secrets)
        stays = signs_in and before.route.key(TOKEN) == after.key(TOKEN)
        minted_tokens.forget_authorization(
            session, row, keep_issuer=stays, keep_registrations=stays and not moves_registration
        )
        return minted_tokens.end_connections(session, row)
    if before.minted.shared != now_minted.shared or moves:
        minted_tokens.end_shared(session, row)
    if moves_registration:
        minted_tokens.forget_authorization(session, row, keep_issuer=True)
    return 0


def _text_before(session: Session, before: _Before, secret: ServerSecret) -> str | None:
    sealed, bound, place, bound_place = before.secrets[secret.field, secret.name]
    vault = runtime_of(session).vault
    return vault.open(bound, bound_place) if bound is not None else vault.open(sealed, place)


def _global_before(
    session: Session, row: Server, before: _Before, variable: ServerVariable
) -> str | None:
    sealed, _ = before.globals.get(variable.name, (None, None))
    if sealed is None or sealed != variable.sealed:
        return None  # a new value, bound for the first time
    return global_of(runtime_of(session).vault, row, variable, before.route)


def _columns(part: Server | ServerSecret | ServerVariable) -> dict[str, Any]:
    return {c.name: getattr(part, c.name) for c in type(part).__table__.columns}
