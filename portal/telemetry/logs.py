"""One line an event, as JSON or as text, with the id of the request, and with nothing that could be
a secret.

Everybody logs through the standard library; this is where its records are written down.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog
from structlog.stdlib import ProcessorFormatter

Event = MutableMapping[str, Any]
HIDDEN = "[hidden]"

# The last defence: no caller may rely on it. What comes before a secret stays, so that one sees
# what it was.
_SECRETS = [
    (re.compile(pattern, re.IGNORECASE), rf"{keep}{HIDDEN}")
    for pattern, keep in (
        (r"\bsk-[\w-]{6,}", ""),
        (r"\beyJ[\w-]{6,}\.[\w-]+\.[\w-]*", ""),
        (r"(?P<keep>\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}", r"\g<keep>"),
        (r"(?P<keep>\b(?:set-)?cookie2?['\"]?\s*[:=]\s*).+", r"\g<keep>"),
        (
            r"(?P<keep>\b(?:authorization|password|passwd|secret|api[_-]?key|x-api-key)['\"]?\s*[:=]\s*['\"]?)[^\s,'\"&]+",
            r"\g<keep>",
        ),
        (
            r"(?P<keep>\b(?:code|state|token|nonce|\w+_(?:token|secret|verifier|challenge|assertion)|sig|signature|key)=)"
            r"[^\s&'\"<>]+",
            r"\g<keep>",
        ),
        (r"(?P<keep>://)[^\s/@]+@", r"\g<keep>"),
    )
]
# Most values are words, ids and routes. In these letters only the first two of the above can stand.
_PLAIN = re.compile(r"[\w./<>-]*\Z", re.ASCII)
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def begin(form: str | None, level: str) -> None:
    """Write all that this process logs to stderr.

    `form` is `json` or `text`; None means text at a terminal, where a person reads, and JSON
    elsewhere. `level` is for the portal's own words: libraries tell too much below WARNING, such as
    addresses with what stands in their query.
    """
    as_json = form == "json" if form else not sys.stderr.isatty()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, getattr(logging, level.upper())))
    logging.getLogger("portal").setLevel(level.upper())


def formatter(*, as_json: bool) -> logging.Formatter:
    """Makes one line of a record of the standard library."""
    render = structlog.processors.JSONRenderer(serializer=_json) if as_json else _text()
    return ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[ProcessorFormatter.remove_processors_meta, _tell_where, _harmless, render],
    )


def begin_request(request_id: str) -> None:
    """From here on all that this thread logs carries the id, until `end_request`."""
    structlog.contextvars.bind_contextvars(request_id=request_id)


def end_request() -> None:
    """The thread goes on to somebody else."""
    structlog.contextvars.clear_contextvars()


def places(error: BaseException) -> list[str]:
    """Where an exception came from, the innermost place first; its text may hold what somebody
    typed, so it is left."""
    found = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        found.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return found[::-1][:8]


def _tell_where(_logger: object, _method: str, event: Event) -> Event:
    """Put kind and place instead of a traceback, which quotes the exception's text and fills many
    lines."""
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else given
    event.pop("stack_info", None)
    if isinstance(error, BaseException):
        event["error"], event["error_at"] = type(error).__name__, " < ".join(places(error))
    return event


def _harmless(_logger: object, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if value is not None and not isinstance(value, bool | int | float):
            event[name] = scrubbed(str(value))
    return event


def scrubbed(text: str) -> str:
    """The text without what looks like a secret, and on one line."""
    if _PLAIN.match(text) and "sk-" not in (lower := text.lower()) and "eyj" not in lower:
        return text
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return _BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _json(event: Event, **_options: Any) -> str:
    first = {name: event.pop(name) for name in ("timestamp", "level", "logger", "event")}
    return orjson.dumps({**first, **event}).decode()


def _text() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, sort_keys=False)
