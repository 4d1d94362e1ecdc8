"""Check of the message endpoint in SSE streams, which must be at the origin of the stream.

The SDK also does not send messages to other origins, but reports no error and waits for a timeout.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import httpx2

_LONGEST = 16 * 1024


class EndpointWatch(httpx2.AsyncByteStream):
    """A byte stream that calls `foreign` and ends if its `endpoint` event has another origin."""

    def __init__(self, response: httpx2.Response, foreign: Callable[[], None]) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        self._stream = response.stream
        self._here = response.request.url
        self._foreign = foreign

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen: bytes | None = b""
        async for chunk in self._stream:
            if seen is not None:
                seen = (seen + chunk)[:_LONGEST].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
                if names_another_origin(self._here, seen.decode("utf-8", "replace")):
                    self._foreign()
                    return
                if b"\n\n" in seen.partition(b"event: endpoint")[2] or len(seen) >= _LONGEST:
                    seen = None
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def names_another_origin(here: httpx2.URL, text: str) -> bool:
    """Return whether a complete `endpoint` event in `text` has another origin than `here`."""
    for event in text.split("\n\n")[:-1]:
        fields = [line.partition(":") for line in event.split("\n")]
        values = {name: value.removeprefix(" ") for name, _, value in fields}
        if values.get("event") == "endpoint":
            with suppress(httpx2.InvalidURL, ValueError):
                there = here.join(values.get("data", ""))
                return (there.scheme, there.host, there.port) != (here.scheme, here.host, here.port)
            return True
    return False
