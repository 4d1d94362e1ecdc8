"""All kinds of stored secrets, for counting and re-encrypting them.

Values stay in the vault. They are read in batches along the primary key, and replaced only if
unchanged since, so that no concurrent write is lost.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, inspect, select, tuple_, update
from sqlalchemy.orm import Session, selectinload

from portal.services.audit import hash_chain
from portal.services.secrets import bindings
from portal.services.secrets.server_definition import route_of
from portal.store.models import (
    BrowserSession,
    ChainKey,
    ImportDraft,
    Proposal,
    Sealed,
    Server,
    ServerSecret,
    ServerVariable,
    UserCredential,
    UserVariable,
)
from portal.store.oauth_tables import (
    OAuthClientRegistration,
    OAuthFlow,
    SharedToken,
    TemporaryServer,
)
from portal.store.vault import HEADER_BYTES, Place

_BATCH = 100


@dataclass(frozen=True)
class Value:
    """A stored secret, still sealed: its row's ids, its place, and the content of its column."""

    ids: tuple[Any, ...]
    place: Place
    ciphertext: bytes
    stored: Any


@dataclass(frozen=True)
class Kind:
    """A kind of stored secret: the table, and the place that a row is bound to.

    `place` gets the row and, with `of_server`, its server. `hides_ids`: ids of such rows grant
    access, so reports show only their beginning.
    """

    name: str
    model: type[Any]
    place: Callable[..., Place]
    of_server: bool = True
    hides_ids: bool = False
    field: str = "sealed"

    @property
    def _column(self) -> Any:
        return getattr(self.model, self.field)

    @property
    def keys(self) -> tuple[Any, ...]:
        """The primary key columns."""
        return tuple(getattr(self.model, column.key) for column in inspect(self.model).primary_key)

    @property
    def stored(self) -> ColumnElement[Any]:
        """The value to compare before replacing it."""
        return self._column  # type: ignore[no-any-return]

    @property
    def is_set(self) -> ColumnElement[bool]:
        """Whether a row has a value."""
        return func.length(self._column) > 0

    def is_under_another(self, header: bytes) -> ColumnElement[bool]:
        """Exclude values that begin with `header`."""
        return func.substr(self._column, 1, len(header), type_=Sealed) != header

    def headers(self, session: Session) -> Iterator[bytes]:
        """Yield the beginning of every value, enough to identify its key."""
        query = select(func.substr(self._column, 1, HEADER_BYTES, type_=Sealed)).where(self.is_set)
        yield from session.scalars(query, execution_options={"yield_per": 1_000})

    def ciphertext(self, stored: Any) -> bytes:
        """Return the value in the stored content."""
        return bytes(stored)

    def changes(self, stored: Any, ciphertext: bytes) -> dict[str, Any]:
        """Return what to write for another value."""
        return {self.field: ciphertext}

    def batch(
        self,
        session: Session,
        after: tuple[Any, ...] | None,
        *conditions: ColumnElement[bool],
        locked: bool = False,
    ) -> list[Value]:
        """Return the next values along the primary key.

        `locked` locks the rows on PostgreSQL until the transaction ends, and skips rows that others
        have locked, to prevent deadlocks.
        """
        query = select(self.model, Server) if self.of_server else select(self.model)
        query = (
            query.add_columns(self.stored.label("stored"))
            .where(self.is_set, *conditions)
            .order_by(*self.keys)
            .limit(_BATCH)
        )
        if self.of_server:
            joined = query.join(Server, Server.server_id == self.model.server_id)
            query = joined.options(selectinload(Server.secrets))
        if after is not None:
            query = query.where(tuple_(*self.keys) > after)
        if locked:
            query = query.with_for_update(of=self.model, skip_locked=True)
        return [self._value(session, *found) for found in session.execute(query)]

    def walk(self, session: Session) -> Iterator[Value]:
        """Yield all values."""
        after = None
        while found := self.batch(session, after):
            yield from found
            session.expunge_all()
            after = found[-1].ids

    def replace(self, session: Session, value: Value, ciphertext: bytes) -> bool:
        """Replace a value if it is unchanged, and return whether it was.

        The row's change time stays the same.
        """
        times = {c.key: c for c in self.model.__table__.columns if c.onupdate is not None}
        changed = session.execute(
            update(self.model)
            .where(
                *(key == part for key, part in zip(self.keys, value.ids, strict=True)),
                self.stored == value.stored,
            )
            .values(**times, **self.changes(value.stored, ciphertext))
            .execution_options(synchronize_session=False)
        )
        return bool(getattr(changed, "rowcount", 0))

    def _value(self, session: Session, row: Any, *rest: Any) -> Value:
        ids = tuple(getattr(row, key.key) for key in self.keys)
        stored = rest[-1]
        return Value(ids, self._place(session, row, *rest[:-1]), self.ciphertext(stored), stored)

    def _place(self, session: Session, row: Any, *server: Any) -> Place:
        return self.place(row, *server)


class _Bound(Kind):
    """A value sealed for the destination that the server's address or arguments determine."""

    def _place(self, session: Session, row: Any, *server: Any) -> Place:
        return self.place(row, *server, route_of(session, server[0]))


@dataclass(frozen=True)
class _InSession(Kind):
    """The ID token that a browser session keeps for sign-out, as base64 in its JSON."""

    @property
    def stored(self) -> ColumnElement[Any]:
        return cast(BrowserSession.data, Text)

    @property
    def is_set(self) -> ColumnElement[bool]:
        return func.length(self._text) > 0

    def is_under_another(self, header: bytes) -> ColumnElement[bool]:
        return self.is_set  # base64 does not align with bytes

    def headers(self, session: Session) -> Iterator[bytes]:
        query = select(func.substr(self._text, 1, -(-HEADER_BYTES // 3) * 4)).where(self.is_set)
        for text in session.scalars(query, execution_options={"yield_per": 1_000}):
            yield _decoded(text)

    def ciphertext(self, stored: Any) -> bytes:
        return _decoded(json.loads(stored)[self.field])

    def changes(self, stored: Any, ciphertext: bytes) -> dict[str, Any]:
        return {"data": {**json.loads(stored), self.field: base64.b64encode(ciphertext).decode()}}

    @property
    def _text(self) -> ColumnElement[str]:
        return cast(BrowserSession.data[self.field].as_string(), Text)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""


CHAIN_KEYS = "audit chain keys"
"""Derived from the ring itself; losing one loses nothing that anyone stored."""

KINDS = (
    Kind(
        "server secrets",
        ServerSecret,
        lambda row, server: bindings.of_secret(server, row.field, row.name),
    ),
    Kind(
        "global variables", ServerVariable, lambda row, server: bindings.of_global(server, row.name)
    ),
    _Bound(
        "bound server secrets",
        ServerSecret,
        lambda row, server, route: bindings.of_bound_secret(server, row.field, row.name, route),
        field="bound",
    ),
    _Bound(
        "bound global variables",
        ServerVariable,
        lambda row, server, route: bindings.of_bound_global(server, row.name, route),
        field="bound",
    ),
    Kind(
        "user variables",
        UserVariable,
        lambda row, server: bindings.of_user_variable(server, row.user_id, row.name),
    ),
    Kind(
        "user credentials",
        UserCredential,
        lambda row, server: bindings.of_user_credential(server, row.user_id, row.kind),
    ),
    Kind(
        "client registrations",
        OAuthClientRegistration,
        lambda row, server: bindings.of_registration(server, row),
    ),
    Kind(
        "shared tokens",
        SharedToken,
        lambda row, server: bindings.of_shared_token(server, row.subject),
    ),
    Kind("proposals", Proposal, lambda row, server: bindings.of_proposal(server)),
    Kind(
        "import drafts", ImportDraft, lambda row: bindings.of_import(row.user_id), of_server=False
    ),
    Kind(
        "OAuth flows", OAuthFlow, lambda row: bindings.of_flow(row), of_server=False, hides_ids=True
    ),
    Kind(
        "temporary servers",
        TemporaryServer,
        lambda row: bindings.of_temporary(row),
        of_server=False,
    ),
    _InSession(
        "sign-in hints",
        BrowserSession,
        lambda row: bindings.of_id_token(row.user_id or ""),
        of_server=False,
        hides_ids=True,
        field="id_token",
    ),
    Kind(
        CHAIN_KEYS, ChainKey, lambda row: hash_chain.place_of_key(row.chain_key_id), of_server=False
    ),
)
