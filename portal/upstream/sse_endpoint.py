"""Where an SSE stream wants messages sent: only to its own origin, and a stream that says otherwise
ends at once.

The SDK sends nothing elsewhere either, but says so to nobody and waits until the time is over.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import httpx2

_LONGEST = 16 * 1024


class EndpointWatch(httpx2.AsyncByteStream):
    """The bytes of a stream as they come; `foreign` is called once where its `endpoint` event names
    another origin."""

    def __init__(self, response: httpx2.Response, foreign: Callable[[], None]) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        self._stream, self._here, self._foreign = response.stream, response.request.url, foreign

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
    """Whether a whole `endpoint` event in `text` leads away from the origin of `here`."""
    for event in text.split("\n\n")[:-1]:
        fields = [line.partition(":") for line in event.split("\n")]
        values = {name: value.removeprefix(" ") for name, _, value in fields}
        if values.get("event") == "endpoint":
            with suppress(httpx2.InvalidURL, ValueError):
                there = here.join(values.get("data", ""))
                return (there.scheme, there.host, there.port) != (here.scheme, here.host, here.port)
            return True
    return False
