"""Flask sessions stored in the database. The cookie is a random ID."""

import secrets
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.datastructures import CallbackDict

from portal.services.access import sessions
from portal.store.database import Database


class PortalSession(CallbackDict[str, Any], SessionMixin):
    """The session of a browser. `renew()` prevents session fixation.

    `fault` is the database error if the session could not be read or written. It is then not saved,
    so that the user is not signed out.
    """

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        cookie: str | None = None,
        *,
        fault: SQLAlchemyError | None = None,
    ) -> None:
        super().__init__(data or {}, self._changed)
        self.cookie = cookie
        self.old_cookie = None
        self.fault = fault
        self.modified = False

    def renew(self) -> None:
        """Replace the session ID."""
        self.old_cookie = self.cookie
        self.cookie = None
        self.modified = True

    @staticmethod
    def _changed(session: "PortalSession") -> None:
        session.modified = True

    cookie: str | None
    old_cookie: str | None
    fault: SQLAlchemyError | None


class StoredSessions(SessionInterface):
    """Open and save each `PortalSession` in a transaction separate from the request's."""

    def __init__(self, database: Database, *, https: bool) -> None:
        self._database = database
        self._https = https
        self._name = "__Host-portal" if https else "portal"

    def open_session(self, app: Flask, request: Request) -> PortalSession:
        """Return the session of the request's cookie, or a new one."""
        cookie = request.cookies.get(self._name)
        if not cookie or len(cookie) > 128 or request.path.startswith("/static/"):
            return PortalSession()
        try:
            with self._database.session() as session:
                stored = sessions.load_session(session, cookie)
        except SQLAlchemyError as fault:
            return PortalSession(fault=fault)
        if stored is None:
            return PortalSession()
        if stored.is_due_for_a_touch:
            with self._database.noting() as session:
                sessions.touch_session(session, cookie)
        return PortalSession(dict(stored.data), cookie)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Write the session if it changed, and set or delete its cookie."""
        if not isinstance(session, PortalSession) or not session.modified or session.fault:
            return
        cookie = session.cookie or secrets.token_urlsafe(32)
        with self._database.session(writes=True) as store:
            for ended in filter(None, (session.old_cookie, None if session else session.cookie)):
                sessions.end_session(store, ended)
            if session:
                user_id = session.get("_user_id")
                agent = session.get("agent")
                sessions.save_session(store, cookie, dict(session), user_id, agent)
            store.commit()
        if session:
            response.set_cookie(
                self._name, cookie, secure=self._https, httponly=True, samesite="Lax", path="/"
            )
        else:
            response.delete_cookie(
                self._name, path="/", secure=self._https, httponly=True, samesite="Lax"
            )
        response.vary.add("Cookie")
        session.modified = False
