"""The log of calls: one task of each process writes them to the database, a batch at a time.

A call is stored at most a second after its response. If the database does not keep up, calls beyond
`MOST_WAITING` are not logged but counted, so that callers do not wait. With `strict`, a response
ends only after its call was stored.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection

from portal.domain.errors import Unavailable
from portal.domain.principals import OPERATOR
from portal.gateway.identity import Found, Sessions
from portal.gateway.messages import shown
from portal.gateway.relay import EVENTS, Exchange
from portal.services.audit.call_batches import CallBatch
from portal.services.gateway import calls
from portal.services.gateway.calls import Call, Caller, CallOutcome, Use
from portal.telemetry import metrics

log = logging.getLogger("portal.gateway")

MOST_WAITING = 20_000
SEEN_BYTES = 64 * 1024
"""How much of the end of a response is examined for an error. The response does not wait for it."""

_BATCH = 200
_WAIT = 0.5  # seconds; with the time of the write, less than a second
_RETRY = 1.0
_LAST_TRIES = 5
_LOOK = 10.0  # how often an idle process checks whether its batch is over
_LOGGED = {"tools/call": True, "prompts/get": True, "resources/read": False}
"""The methods that are logged, and whether with the name. The URI of a resource can be secret."""

_LISTS = frozenset({"tools/list", "prompts/list", "resources/list"})
_MAY_BE_ERROR = re.compile(rb'"isError"\s*:\s*true|"error"\s*:\s*\{')
_MAY_BE_ANSWER = re.compile(rb'"(?:result|error)"\s*:')
_END_OF_EVENT = re.compile(r"\r?\n\r?\n|\r\r")


class CallLog:
    """The calls and uses that wait to be written. Use it in one event loop only."""

    def __init__(self, database: Sessions, *, is_strict: bool) -> None:
        self.is_strict = is_strict
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="calls")
        self._batch: CallBatch | None = None  # of the thread
        self._unlogged = 0
        self._calls: list[Call] = []
        self._uses: dict[tuple[str, str | None, str | None, bool], Use] = {}
        self._stored: list[asyncio.Future[None]] = []
        self._some, self._due = asyncio.Event(), asyncio.Event()
        self._stops = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start the task that writes."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Write what waits, end the batch, and stop."""
        self._stops = True
        self._some.set()
        self._due.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown(wait=False)

    def add(self, call: Call) -> None:
        """Log a call soon."""
        if len(self._calls) >= MOST_WAITING:
            self._count_unlogged(1)
            return
        self._calls.append(call)
        self.note(Use(call.at, call.caller, call.server_id, is_call=True))
        self._some.set()
        if len(self._calls) >= _BATCH:
            self._due.set()

    async def add_now(self, call: Call) -> None:
        """Log a call, and return when it is stored. Raises `Unavailable`."""
        stored = asyncio.get_running_loop().create_future()
        self._stored.append(stored)
        self.add(call)
        self._due.set()
        await stored

    def note(self, use: Use) -> None:
        """Note a use of a server soon; only the latest of a user and app counts."""
        if use.caller.user_id is not None:
            key = (use.server_id, use.caller.user_id, use.caller.app_id, use.is_call)
            self._uses[key] = use
            self._some.set()

    async def _run(self) -> None:
        tries = 0
        while not self._stops or tries < _LAST_TRIES:
            await self._until_due()
            if await self._write():
                tries = 0
                if self._stops and not (self._calls or self._uses):
                    break
                continue
            tries += self._stops
            await asyncio.sleep(_RETRY)
        self._count_unlogged(len(self._calls))

    async def _until_due(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._some.wait(), _LOOK)
            await asyncio.wait_for(self._due.wait(), _WAIT)

    async def _write(self) -> bool:
        """Write what waits; return False if the database did not answer and this is due again."""
        if not self._stops:
            self._some.clear()
            self._due.clear()
        rows, self._calls = self._calls, []
        uses, self._uses = self._uses, {}
        stored, self._stored = self._stored, []
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, self._store, rows, list(uses.values()), self._stops
            )
        except SQLAlchemyError as error:
            log.warning("calls were not logged (%s)", type(error).__name__)
            if stored or not isinstance(error, OperationalError | NoConnection):
                self._count_unlogged(len(rows))
            else:
                self._calls = rows + self._calls
                self._uses = uses | self._uses
                self._some.set()
            for future in stored:
                _settle(future, Unavailable("The call was made, but could not be logged."))
            return False
        for future in stored:
            _settle(future)
        return True

    def _store(self, rows: Sequence[Call], uses: Sequence[Use], ends: bool) -> None:
        if not (rows or uses or self._batch):
            return
        with self._database.session(writes=True) as session:
            unlogged = self._unlogged
            batch = calls.log_calls(
                session, OPERATOR, self._batch, rows, unlogged=unlogged, ends=ends
            )
            calls.note_uses(session, OPERATOR, uses)
            try:
                session.commit()
            except SQLAlchemyError:
                self._batch = None  # it is unknown whether these calls are stored
                raise
        if self._batch is not None and batch is None:
            self._unlogged -= unlogged
        self._batch = batch

    def _count_unlogged(self, number: int) -> None:
        self._unlogged += number
        for _ in range(number):
            metrics.count("portal_calls_unlogged_total")


class Recording:
    """One request, as the log sees it."""

    def __init__(self, call_log: CallLog, found: Found, exchange: Exchange, bytes_in: int) -> None:
        self._log, self._found, self._exchange = call_log, found, exchange
        self._bytes_in = bytes_in
        self._began = time.perf_counter()
        self._at = datetime.now(UTC)
        self._end = bytearray()
        self._is_stream = False
        self._is_done = False

    @property
    def waits(self) -> bool:
        """Return whether the response must not end before `settle`."""
        return self._log.is_strict and self._is_logged and not self._is_done

    def begin(self, content_type: str) -> None:
        """Note the type of the response."""
        self._is_stream = content_type == EVENTS

    def feed(self, piece: bytes) -> None:
        """Note a piece of the response."""
        if self._is_logged and not self._is_done:
            self._end += piece
            if len(self._end) > SEEN_BYTES:
                del self._end[:-SEEN_BYTES]

    @property
    def is_answered(self) -> bool:
        """Return whether the answer to the request has arrived in an event stream."""
        return (
            self._is_stream
            and _MAY_BE_ANSWER.search(self._end) is not None
            and self._answer() is not None
        )

    async def settle(self, outcome: str, bytes_out: int) -> None:
        """Log the request at the end of its response. Raises `Unavailable` if that is required
        and not possible."""
        if self.waits:
            self._is_done = True
            await self._log.add_now(self._call(outcome, bytes_out))
        else:
            self.end(outcome, bytes_out)

    def end(self, outcome: str, bytes_out: int) -> None:
        """Log the request soon, unless it was logged already."""
        if self._is_done:
            return
        self._is_done = True
        if self._is_logged:
            self._log.add(self._call(outcome, bytes_out))
        elif self._method in _LISTS and outcome == CallOutcome.OK:
            self._log.note(Use(self._at, self._caller, self._server_id, is_call=False))

    @property
    def _method(self) -> str:
        return self._exchange.message.method if self._exchange.message is not None else ""

    @property
    def _is_logged(self) -> bool:
        return self._method in _LOGGED

    @property
    def _server_id(self) -> str:
        return self._found.route.server_id

    @property
    def _caller(self) -> Caller:
        principal = self._found.principal
        client = self._exchange.client
        return Caller(
            principal.user_id,
            principal.key_id,
            principal.app_id,
            client.name if client else None,
            client.version if client else None,
        )

    def _call(self, outcome: str, bytes_out: int) -> Call:
        message = self._exchange.message
        assert message is not None
        if outcome not in tuple(CallOutcome):
            outcome = CallOutcome.UPSTREAM_FAILED
        if outcome == CallOutcome.OK and self._is_error():
            outcome = CallOutcome.TOOL_ERROR
        taken = timedelta(seconds=time.perf_counter() - self._began)
        return Call(
            at=self._at,
            duration_ms=round(taken / timedelta(milliseconds=1)),
            caller=self._caller,
            server_id=self._server_id,
            method=message.method,
            tool=shown(message.name, 128) if _LOGGED[message.method] else None,
            outcome=CallOutcome(outcome),
            bytes_in=self._bytes_in,
            bytes_out=bytes_out,
        )

    def _is_error(self) -> bool:
        """Return whether the answer is an error, if that can be seen in the end of the response."""
        if _MAY_BE_ERROR.search(self._end) is None:
            return False
        answer = self._answer()
        if answer is None:
            return False
        result = answer.get("result")
        return "error" in answer or (isinstance(result, dict) and result.get("isError") is True)

    def _answer(self) -> dict[str, Any] | None:
        """Return the JSON-RPC response, or None if it is not complete in the end of the stream."""
        text = self._end.decode("utf-8", "replace")
        messages = [text]
        if self._is_stream:
            messages = [_data(event) for event in _END_OF_EVENT.split(text)]
        for message in reversed(messages):
            with suppress(ValueError, RecursionError):
                found = json.loads(message)
                if isinstance(found, dict) and ("result" in found or "error" in found):
                    return found
        return None


def _data(event: str) -> str:
    lines = (line for line in event.splitlines() if line.startswith("data:"))
    return "\n".join(line.removeprefix("data:") for line in lines)


def _settle(future: asyncio.Future[None], error: Exception | None = None) -> None:
    if future.done():  # the client disconnected
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(None)
