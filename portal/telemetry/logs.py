"""Log output as JSON or text, one line per event, with the request ID and without secrets.

All code logs through the standard library. This module formats its records.
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

# The last line of defense; callers must not rely on it. The text before a secret stays, to show
# what it was.
_SECRETS = [
    (re.compile(pattern, re.IGNORECASE), rf"{keep}{HIDDEN}")
    for pattern, keep in (
        (r"\bsk-[\w-]{6,}", ""),
        (r"\beyJ[\w-]{6,}\.[\w-]+\.[\w-]*", ""),
        (r"(?P<keep>\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}", r"\g<keep>"),
        (r"(?P<keep>\b(?:set-)?cookie2?['\"]?\s*[:=]\s*).+", r"\g<keep>"),
        (
            r"(?P<keep>\b(?:authorization|password|passwd|secret|api[_-]?key|x-api-key)"
            r"['\"]?\s*[:=]\s*['\"]?)[^\s,'\"&]+",
            r"\g<keep>",
        ),
        (
            r"(?P<keep>\b(?:code|state|token|nonce"
            r"|\w+_(?:token|secret|verifier|challenge|assertion)|sig|signature|key)=)"
            r"[^\s&'\"<>]+",
            r"\g<keep>",
        ),
        (r"(?P<keep>://)[^\s/@]+@", r"\g<keep>"),
    )
]
# Most values are words, IDs and routes. In these characters, only the first two patterns match.
_PLAIN = re.compile(r"[\w./<>-]*\Z", re.ASCII)
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def begin(form: str | None, level: str) -> None:
    """Log to stderr.

    `form` is `json` or `text`; None means text on a terminal and JSON otherwise. `level` applies to
    the portal. Libraries log at least at WARNING, since they log data such as URLs with queries
    below it.
    """
    as_json = form == "json" if form else not sys.stderr.isatty()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, getattr(logging, level.upper())))
    logging.getLogger("portal").setLevel(level.upper())


def formatter(*, as_json: bool) -> logging.Formatter:
    """Return a formatter for records of the standard library, one line each."""
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
    """Add the request ID to all log records of this thread until `end_request`."""
    structlog.contextvars.bind_contextvars(request_id=request_id)


def end_request() -> None:
    """Remove the request ID from the log records of this thread."""
    structlog.contextvars.clear_contextvars()


def code_places(error: BaseException) -> list[str]:
    """Return the locations of an exception, innermost first. Its text may contain input."""
    found = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        found.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return found[::-1][:8]


def _tell_where(_logger: object, _method: str, event: Event) -> Event:
    """Replace the traceback, which has many lines and input, by class and location."""
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else given
    event.pop("stack_info", None)
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["error_at"] = " < ".join(code_places(error))
    return event


def _harmless(_logger: object, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if value is not None and not isinstance(value, bool | int | float):
            event[name] = scrubbed(str(value))
    return event


def scrubbed(text: str) -> str:
    """Return the text on one line, with possible secrets replaced."""
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
