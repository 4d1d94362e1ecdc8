"""`python -m bench.watched serve …`: `portal serve` with measurements in its responses.

Every response has the number of its SQL statements; `/bench/pauses` returns the longest garbage
collection pause since the last request to it. No code of the portal depends on this.
"""

import gc
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Engine, event

from portal import cli
from portal.processes import web

_counted = threading.local()
_pauses: list[float] = []
_began = 0.0


def main() -> None:
    """Run the portal's command line with a wrapped application."""
    event.listen(Engine, "before_cursor_execute", _count)
    gc.callbacks.append(_note_pause)
    made = web.create_app

    def watched(settings: Any) -> Any:
        app = made(settings)
        app.wsgi_app = _Watch(app.wsgi_app)
        return app

    web.create_app = watched
    cli.main()


class _Watch:
    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/bench/pauses":
            longest = max(_pauses, default=0.0)
            _pauses.clear()
            start_response("200 OK", [("Content-Length", str(len(f"{longest:.3f}")))])
            return [f"{longest:.3f}".encode()]
        _counted.statements = 0

        def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(
                status, [*headers, ("X-Statements", str(_counted.statements))], *rest
            )

        return self._app(environ, started)


def _count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
    if not statement.startswith(("BEGIN", "PRAGMA")):
        _counted.statements = getattr(_counted, "statements", 0) + 1


def _note_pause(phase: str, _info: Any) -> None:
    global _began
    if phase == "start":
        _began = time.perf_counter()
    else:
        _pauses.append((time.perf_counter() - _began) * 1000)


if __name__ == "__main__":
    main()
