"""The one way by which the body of every answer comes in: decoded in small steps, and never more
than was agreed.

One gzip stream or none at all is read. Each step is short, and the event loop gets its turn between
them, so that a hostile body costs its own request and no other. What passes a limit is refused with
a sentence for people.
"""

import asyncio
import re
import time
import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

import httpx2

from portal.upstream.json_text import ValueCounter

MAX_MESSAGE_BYTES = 10 * 1024 * 1024
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 200
MAX_ENCODINGS = 1
MAX_RATIO = 100
RATIO_FROM = (
    1024 * 1024
)  # bytes that may be unpacked before the ratio is looked at: small answers repeat themselves
MAX_PIECES = 20_000
FREE_PIECES = 256
"""Chunks that may be of any size; from there on each has to stand for bytes, or in an event stream
for a line."""
BYTES_OF_A_PIECE = 16  # on average
MAX_EVENT_LINES = 20_000
MAX_EVENT_BYTES = (
    1024 * 1024
)  # of one event over HTTP+SSE: what the SDK's reader takes, which has no setting for it
ACCEPT_ENCODING = "gzip"

_GZIP = frozenset({"gzip", "x-gzip"})  # one and the same (RFC 9110, 8.4.1.3)
_SLICE = 16 * 1024  # bytes that are decoded, counted or handed on at once
_STEP = 64 * 1024  # bytes that one step of decoding may produce
_TURN = 0.005  # seconds of work after which the event loop gets its turn
_LONGEST_CONTENT_TYPE = 200
# Of Python's codecs those that read text in linear time; punycode and zlib, for example, are codecs
# as well.
_CHARSET = re.compile(
    r"utf[-_]?8|utf[-_]?16([-_]?(le|be))?|(us-)?ascii|iso[-_]?8859[-_]\d{1,2}|latin[-_]?1|(windows|cp)[-_]?125\d"
    r"|koi8[-_][ru]|shift[-_]jis|euc[-_](jp|kr)|gb2312|gbk|gb18030|big5|iso-2022-jp"
)


class AnswerRefused(httpx2.RequestError):
    """An answer that passed a limit. `said` goes on after the server's name, and names the limit
    and the remedy."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class ResponseTooLarge(AnswerRefused):
    """More bytes, headers, pieces or values than the caller takes."""


class BadEncoding(AnswerRefused, httpx2.DecodingError):
    """A body in another encoding than was asked for, or one that is not what it says."""


class Unfinished(httpx2.ReadTimeout):
    """The answer began, and was not complete when its time was over."""


@dataclass(frozen=True)
class BodyLimits:
    """What a caller takes of one body: bytes, received and unpacked, and JSON values, where a
    library parses them."""

    max_bytes: int = MAX_MESSAGE_BYTES
    max_values: int | None = None


def encodings_of(headers: httpx2.Headers) -> list[str]:
    """The content codings of a response in small letters, in the order they were applied, without
    `identity`."""
    names = (
        name.strip().lower() for name in headers.get_list("content-encoding", split_commas=True)
    )
    return [name for name in names if name not in ("", "identity")]


def headers_after_decoding(response: httpx2.Response) -> list[tuple[bytes, bytes]]:
    """The headers of `response` as they describe its decoded body.

    A character set that is not plain text is left out, so that everybody reads UTF-8: libraries
    look the name up among Python's codecs, and some of those take hours.
    """
    encoded = bool(encodings_of(response.headers))
    dropped = {b"content-encoding"} | ({b"content-length"} if encoded else set())
    return [
        (name, _without_odd_charset(value, response) if name.lower() == b"content-type" else value)
        for name, value in response.headers.raw
        if name.lower() not in dropped
    ]


def _without_odd_charset(value: bytes, response: httpx2.Response) -> bytes:
    media_type = value.partition(b";")[0].strip()
    if len(value) > _LONGEST_CONTENT_TYPE:
        return media_type[:_LONGEST_CONTENT_TYPE]
    charset = response.charset_encoding
    return value if charset is None or _CHARSET.fullmatch(charset.lower()) else media_type


def in_words(size: int) -> str:
    """A number of bytes for people: `5 MiB`, `64 KiB`, `1,000,000 bytes`."""
    for unit, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size:,} bytes"


class LimitedBody:
    """Reads one response's body within limits, until `deadline` on the loop's clock (seconds)."""

    def __init__(self, response: httpx2.Response, limits: BodyLimits, deadline: float) -> None:
        self._response, self._limits, self._deadline = response, limits, deadline
        self._counter = None if limits.max_values is None else ValueCounter()
        self._is_events = "event-stream" in response.headers.get("content-type", "").lower()
        self._working_since = time.monotonic()
        self._received = self._decoded = self._pieces = self._lines = 0
        self._in_line = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The decoded body, at most 64 KiB at a time. Raises AnswerRefused, Unfinished and httpx2's
        own faults."""
        announced = self._response.headers.get("content-length", "")
        if (
            announced.isascii()
            and announced.isdigit()
            and _is_more(announced, self._limits.max_bytes)
        ):
            raise self._too_large()
        decoder: _Gzip | None = None
        async with aclosing(self._slices()) as slices:
            async for piece in slices:
                if self._received == len(
                    piece
                ):  # the first one: where there is none, nothing has to be decoded
                    decoder = _decoder_for(encodings_of(self._response.headers))
                for part in (piece,) if decoder is None else decoder.steps(piece):
                    self._count(part, is_decoded=decoder is not None)
                    if part:
                        yield part
                    await self._give_way()
        if decoder is not None:
            decoder.finish()

    async def _slices(self) -> AsyncGenerator[bytes, None]:
        """The body as it was sent, at most 16 KiB at a time."""
        pieces = aiter(self._response.aiter_raw())
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Unfinished("not complete in time") from None
            self._count_piece(piece)
            await self._give_way()
            for start in range(0, len(piece), _SLICE):
                part = piece[start : start + _SLICE]
                self._received += len(part)
                if self._received > self._limits.max_bytes:
                    raise self._too_large()
                yield part

    def _count_piece(self, piece: bytes) -> None:
        """Raise `ResponseTooLarge` for too many chunks, and for many that are tiny: each costs as
        much as a large one.

        Events are sent as they happen: in a stream of them a line that is not empty counts as a
        chunk.
        """
        self._pieces += 1
        if self._is_events:
            for line in piece.splitlines(keepends=True):
                ends = line[-1:] in b"\r\n"
                self._lines += ends and (self._in_line or line not in (b"\n", b"\r", b"\r\n"))
                self._in_line = not ends
        if self._pieces > MAX_PIECES:
            raise ResponseTooLarge(
                f"sent more than the portal takes: the limit is {MAX_PIECES:,} chunks in one"
                " answer. It has to send larger chunks."
            )
        if (
            self._pieces
            > FREE_PIECES + (self._received + len(piece)) // BYTES_OF_A_PIECE + self._lines
        ):
            raise ResponseTooLarge(
                f"sent its answer in chunks that are too small: after {FREE_PIECES} chunks they"
                f" have to hold {BYTES_OF_A_PIECE} bytes on average. It has to send larger chunks."
            )

    async def _give_way(self) -> None:
        """Let the event loop do something else, after some work of ours and of who reads."""
        if time.monotonic() - self._working_since > _TURN:
            await asyncio.sleep(0)
            if asyncio.get_running_loop().time() > self._deadline:
                raise Unfinished("not complete in time")
            self._working_since = time.monotonic()

    def _count(self, part: bytes, *, is_decoded: bool) -> None:
        self._decoded += len(part)
        if is_decoded and self._decoded > self._limits.max_bytes:
            raise self._too_large(" for what it unpacks to")
        if is_decoded and self._decoded > max(RATIO_FROM, MAX_RATIO * self._received):
            raise ResponseTooLarge(
                f"sent more than the portal takes: the limit is {MAX_RATIO} times the size of a"
                " compressed body. It has to send it without compression."
            )
        if self._counter is None or self._limits.max_values is None:
            return
        self._counter.feed(part)
        if self._counter.values > self._limits.max_values:
            raise ResponseTooLarge(too_many_values(self._limits.max_values))
        if self._is_events and self._counter.lines > MAX_EVENT_LINES:
            raise ResponseTooLarge(
                f"sent more than the portal takes: the limit is {MAX_EVENT_LINES:,} lines of events"
                " in one answer. It has to send fewer."
            )

    def _too_large(self, of_what: str = "") -> ResponseTooLarge:
        size = in_words(self._limits.max_bytes)
        return ResponseTooLarge(
            f"sent more than the portal takes: the limit{of_what} is {size}. It has to send less."
        )


def too_many_values(most: int) -> str:
    """What is said of an answer with more than `most` JSON values, after the server's name."""
    return (
        f"sent more than the portal takes: the limit is {most:,} JSON values in one answer. It has"
        " to send fewer, or in pages."
    )


def _is_more(digits: str, most: int) -> bool:
    """Whether a number is more than `most`; of any length, which int() is not for."""
    digits = digits.lstrip("0")
    return len(digits) > len(str(most)) or int(digits or "0") > most


def _decoder_for(encodings: list[str]) -> "_Gzip | None":
    if len(encodings) > MAX_ENCODINGS:
        raise BadEncoding(
            f"sent a body that is encoded {len(encodings)} times over, and the limit is"
            f" {MAX_ENCODINGS}. It has to answer with gzip alone, or without Content-Encoding."
        )
    if encodings and encodings[0] not in _GZIP:
        raise BadEncoding(
            "sent a body in a Content-Encoding that the portal did not ask for. It has to answer"
            " with gzip, or without Content-Encoding."
        )
    return _Gzip() if encodings else None


class _Gzip:
    """One gzip stream, unpacked step by step; a second one, or anything else, after its end is
    refused."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def steps(self, data: bytes) -> Iterator[bytes]:
        """What `data` adds to the unpacked body, at most 64 KiB each; an empty step where a step
        gave nothing."""
        while True:
            if self._stream.eof:
                raise BadEncoding(
                    "sent bytes after the end of its gzip stream, which the portal does not read."
                    " It has to send one stream, and nothing after it."
                )
            try:
                part = self._stream.decompress(data, _STEP)
            except zlib.error:
                raise BadEncoding(
                    "answered with a body that cannot be decoded: it is not the gzip that its"
                    " Content-Encoding says. It has to send sound gzip, or no Content-Encoding."
                ) from None
            yield part
            data = self._stream.unused_data or self._stream.unconsumed_tail
            if not data and (self._stream.eof or len(part) < _STEP):
                return

    def finish(self) -> None:
        """Raises BadEncoding where the stream has not ended."""
        if not self._stream.eof:
            raise BadEncoding(
                "answered with a body that cannot be decoded: its gzip stream breaks off before its"
                " end. It has to send the whole stream."
            )
