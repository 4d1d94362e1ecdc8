"""Reading of response bodies within limits, decoded in small steps.

Bodies may be uncompressed or one gzip stream. Each step is short and the event loop runs between
steps, so that a malicious body slows down only its own request. If a limit is exceeded, the error
has a message for people.
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
RATIO_FROM = 1024 * 1024  # decoded bytes from which the ratio is checked
MAX_PIECES = 20_000
FREE_PIECES = 256
"""Number of chunks of any size. Further ones must contain bytes or, in an event stream, a line."""
BYTES_OF_A_PIECE = 16  # on average
MAX_EVENT_LINES = 20_000
MAX_EVENT_BYTES = 1024 * 1024  # of one event over HTTP+SSE, a fixed limit of the SDK
ACCEPT_ENCODING = "gzip"

_GZIP = frozenset({"gzip", "x-gzip"})  # both mean the same (RFC 9110, section 8.4.1.3)
_SLICE = 16 * 1024  # bytes that are decoded, counted or passed on at once
_STEP = 64 * 1024  # bytes that one step of decoding may produce
_TURN = 0.005  # seconds of work before the event loop runs
_LONGEST_CONTENT_TYPE = 200
# Python codecs that decode text in linear time. Others, like punycode and zlib, do not.
_CHARSET = re.compile(
    r"utf[-_]?8|utf[-_]?16([-_]?(le|be))?|(us-)?ascii|iso[-_]?8859[-_]\d{1,2}|latin[-_]?1|(windows|cp)[-_]?125\d"
    r"|koi8[-_][ru]|shift[-_]jis|euc[-_](jp|kr)|gb2312|gbk|gb18030|big5|iso-2022-jp"
)


class AnswerRefused(httpx2.RequestError):
    """A response exceeded a limit. `said` is a message with limit and remedy, after the name."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class ResponseTooLarge(AnswerRefused):
    """The response has too many bytes, headers, chunks or values."""


class BadEncoding(AnswerRefused, httpx2.DecodingError):
    """The body has an unsupported encoding or is not valid in its encoding."""


class Unfinished(httpx2.ReadTimeout):
    """The response was not complete before the timeout."""


@dataclass(frozen=True)
class BodyLimits:
    """Limits of a body: bytes, received and decoded, and JSON values if a library parses them."""

    max_bytes: int = MAX_MESSAGE_BYTES
    max_values: int | None = None


def encodings_of(headers: httpx2.Headers) -> list[str]:
    """Return the lowercase content codings of a response in order, without `identity`."""
    names = (
        name.strip().lower() for name in headers.get_list("content-encoding", split_commas=True)
    )
    return [name for name in names if name not in ("", "identity")]


def headers_after_decoding(response: httpx2.Response) -> list[tuple[bytes, bytes]]:
    """Return the headers of `response` for its decoded body.

    Unknown character sets are removed, so that the body is read as UTF-8. Libraries use the name as
    a Python codec, and some codecs take hours.
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
    """Return a number of bytes for display: `5 MiB`, `64 KiB`, `1,000,000 bytes`."""
    for unit, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size:,} bytes"


class LimitedBody:
    """Reader of a response body within limits, until `deadline` (seconds of the loop's clock)."""

    def __init__(self, response: httpx2.Response, limits: BodyLimits, deadline: float) -> None:
        self._response = response
        self._limits = limits
        self._deadline = deadline
        self._counter = None if limits.max_values is None else ValueCounter()
        self._is_events = "event-stream" in response.headers.get("content-type", "").lower()
        self._working_since = time.monotonic()
        self._received = self._decoded = self._pieces = self._lines = 0
        self._in_line = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the decoded body in parts of at most 64 KiB.

        Raises `AnswerRefused`, `Unfinished` and errors of httpx2.
        """
        announced = self._response.headers.get("content-length", "")
        is_number = announced.isascii() and announced.isdigit()
        if is_number and _is_more(announced, self._limits.max_bytes):
            raise self._too_large()
        decoder: _Gzip | None = None
        async with aclosing(self._slices()) as slices:
            async for piece in slices:
                if self._received == len(piece):  # the first part; an empty body has none
                    decoder = _decoder_for(encodings_of(self._response.headers))
                for part in (piece,) if decoder is None else decoder.steps(piece):
                    self._count(part, is_decoded=decoder is not None)
                    if part:
                        yield part
                    await self._give_way()
        if decoder is not None:
            decoder.finish()

    async def _slices(self) -> AsyncGenerator[bytes, None]:
        """Yield the received body in parts of at most 16 KiB."""
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
        """Raise `ResponseTooLarge` for too many chunks, or many tiny ones, which are expensive.

        In an event stream, each non-empty line justifies a chunk, since events are sent one by one.
        """
        self._pieces += 1
        if self._is_events:
            for line in piece.splitlines(keepends=True):
                ends = line[-1:] in b"\r\n"
                self._lines += ends and (self._in_line or line not in (b"\n", b"\r", b"\r\n"))
                self._in_line = not ends
        if self._pieces > MAX_PIECES:
            raise ResponseTooLarge(
                f"sent too much: the limit is {MAX_PIECES:,} chunks per response. The server must"
                " send larger chunks."
            )
        justified = (self._received + len(piece)) // BYTES_OF_A_PIECE + self._lines
        if self._pieces > FREE_PIECES + justified:
            raise ResponseTooLarge(
                f"sent chunks that are too small: after {FREE_PIECES} chunks they must contain"
                f" {BYTES_OF_A_PIECE} bytes on average. The server must send larger chunks."
            )

    async def _give_way(self) -> None:
        """Let the event loop run after some time of work here and in the caller."""
        if time.monotonic() - self._working_since > _TURN:
            await asyncio.sleep(0)
            if asyncio.get_running_loop().time() > self._deadline:
                raise Unfinished("not complete in time")
            self._working_since = time.monotonic()

    def _count(self, part: bytes, *, is_decoded: bool) -> None:
        self._decoded += len(part)
        if is_decoded and self._decoded > self._limits.max_bytes:
            raise self._too_large(" after decompression")
        if is_decoded and self._decoded > max(RATIO_FROM, MAX_RATIO * self._received):
            raise ResponseTooLarge(
                f"sent too much: the limit is {MAX_RATIO} times the size of a compressed body. The"
                " server must send it without compression."
            )
        if self._counter is None or self._limits.max_values is None:
            return
        self._counter.feed(part)
        if self._counter.values > self._limits.max_values:
            raise ResponseTooLarge(too_many_values(self._limits.max_values))
        if self._is_events and self._counter.lines > MAX_EVENT_LINES:
            raise ResponseTooLarge(
                f"sent too much: the limit is {MAX_EVENT_LINES:,} lines of events per response. The"
                " server must send fewer."
            )

    def _too_large(self, of_what: str = "") -> ResponseTooLarge:
        size = in_words(self._limits.max_bytes)
        return ResponseTooLarge(
            f"sent too much: the limit{of_what} is {size}. The server must send less."
        )


def too_many_values(most: int) -> str:
    """Return the message for more than `most` JSON values, to follow the server's name."""
    return (
        f"sent too much: the limit is {most:,} JSON values per response. The server must send fewer"
        " values, or several pages."
    )


def _is_more(digits: str, most: int) -> bool:
    """Return whether a number of any length is greater than `most`, without parsing it whole."""
    digits = digits.lstrip("0")
    return len(digits) > len(str(most)) or int(digits or "0") > most


def _decoder_for(encodings: list[str]) -> "_Gzip | None":
    if len(encodings) > MAX_ENCODINGS:
        raise BadEncoding(
            f"sent a body with {len(encodings)} encodings, and the limit is {MAX_ENCODINGS}. The"
            " server must use only gzip, or no Content-Encoding."
        )
    if encodings and encodings[0] not in _GZIP:
        raise BadEncoding(
            "sent a body with an unsupported Content-Encoding. The server must use gzip, or no"
            " Content-Encoding."
        )
    return _Gzip() if encodings else None


class _Gzip:
    """Decoder of a single gzip stream in steps. Data after its end are an error."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def steps(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded data in parts of at most 64 KiB, which may be empty."""
        while True:
            if self._stream.eof:
                raise BadEncoding(
                    "sent data after the end of its gzip stream. The server must send a single"
                    " stream and nothing after it."
                )
            try:
                part = self._stream.decompress(data, _STEP)
            except zlib.error:
                raise BadEncoding(
                    "sent a body that cannot be decoded: it is not valid gzip. The server must send"
                    " valid gzip, or no Content-Encoding."
                ) from None
            yield part
            data = self._stream.unused_data or self._stream.unconsumed_tail
            if not data and (self._stream.eof or len(part) < _STEP):
                return

    def finish(self) -> None:
        """Raise `BadEncoding` if the stream is not complete."""
        if not self._stream.eof:
            raise BadEncoding(
                "sent a body that cannot be decoded: its gzip stream is not complete. The server"
                " must send the whole stream."
            )
