"""The caller and their route to the server: database work of the gateway, in its own threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.domain import addresses
from portal.domain.errors import Forbidden, Unauthenticated
from portal.domain.principals import Principal
from portal.domain.request_headers import bearer_of, passable_headers
from portal.gateway.requests import Asked
from portal.services import instance_settings
from portal.services.access import principals
from portal.services.gateway import route
from portal.services.gateway.route import Missing, OpenRoute
from portal.services.oauth_server import is_access_token, principal_of
from portal.telemetry import metrics

T = TypeVar("T")
_THREADS = 16


class Sessions(Protocol):
    """Creates database sessions."""

    def session(self, *, writes: bool = False) -> Session:
        """Return a database session."""

    def noting(self) -> AbstractContextManager[Session]:
        """Return a session for writes that must not wait."""


@dataclass(frozen=True)
class Found:
    """The caller, and their route to the server."""

    principal: Principal
    route: OpenRoute


class Reception:
    """Authenticates callers and opens their routes."""

    def __init__(self, database: Sessions, trusted_proxies: tuple[str, ...]) -> None:
        self._database = database
        self._proxies = trusted_proxies
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="gateway")

    async def open(self, asked: Asked, *, refused: str = "") -> Found:
        """Return the caller and their route; if the upstream `refused` a token, with another one.

        Raises `Unauthenticated`, `Forbidden`, and errors of the database.
        """
        return await self._in_thread(lambda: self._open(asked, refused))

    async def note_refused(self, found: Found) -> Missing:
        """Store that the upstream refused a new token; return what the caller has to do."""
        return await self._in_thread(
            lambda: self._with_session(
                lambda session: route.note_refused(session, found.principal, found.route)
            )
        )

    async def note_more_rights(self, found: Found, scopes: tuple[str, ...]) -> Missing:
        """Store that the upstream requires more scopes; return what the caller has to do."""
        return await self._in_thread(
            lambda: self._with_session(
                lambda session: route.note_more_rights(
                    session, found.principal, found.route, scopes
                )
            )
        )

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _with_session(self, work: Callable[[Session], T]) -> T:
        with self._database.session() as session:
            return work(session)

    def _open(self, asked: Asked, refused: str) -> Found:
        with self._database.session() as session:
            principal = self._principal(session, asked)
            if not authz.may_take_endpoint(principal, asked.address.path):
                raise Forbidden("This API key may not call this route.")
            credentials = (asked.credential, bearer_of(asked.headers.get("authorization", "")))
            passed = passable_headers(asked.headers.items(), credentials)
            opened = route.open_route(
                session, principal, asked.address.name, passed, refused=refused
            )
        return Found(principal, opened)

    def _principal(self, session: Session, asked: Asked) -> Principal:
        credential = asked.credential
        if not credential:
            raise Unauthenticated("A valid API key or access token is required.")
        address = self._address(session, asked)
        try:
            if is_access_token(credential):
                return _principal_of_app(session, asked, credential, address)
            principal = principals.principal_for_key(session, credential, address)
        except Unauthenticated:
            metrics.security("key_refused")
            raise
        if not principals.is_use_noted(session, principal):
            with self._database.noting() as own:
                principals.note_key_use(own, principal)
        return principal

    def _address(self, session: Session, asked: Asked) -> str | None:
        """Return the client's address: the peer, or the forwarded one of a trusted proxy."""
        forwarded = asked.headers.get("x-forwarded-for")
        if not forwarded:
            return asked.peer
        trusted = instance_settings.load_preferences(session).trusted_proxies
        return addresses.client_address(asked.peer, forwarded, (*self._proxies, *trusted))


def _principal_of_app(session: Session, asked: Asked, token: str, address: str | None) -> Principal:
    principal = principal_of(session, token, asked.address, address=address)
    if principal is None:
        raise Unauthenticated("The access token is unknown, expired, or for another address.")
    return principal
