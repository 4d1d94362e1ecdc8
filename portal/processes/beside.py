"""Child processes of `portal serve` in embedded mode: forked, and restarted if they end.

A fork shares the memory of the loaded code and starts in a few milliseconds.
"""

import ctypes
import gc
import logging
import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from gunicorn.arbiter import Arbiter

from portal.telemetry import metrics

log = logging.getLogger("portal.processes")
_PR_SET_NAME = 15
_GRACE = 25  # seconds; the front waits for running calls for 20


class Beside:
    """A child process that calls `run`. Its name is for operators, as `ps -o comm` shows it.

    The child holds one end of a pipe, so that its end is noticed even if gunicorn's master, which
    waits for all children, was first to read its exit status.
    """

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self._name, self._run = name, run
        self._pid: int | None = None
        self._lifeline = -1

    def look_after(self) -> None:
        """Start the process, unless it is running."""
        if self._pid is not None:
            if not self._has_ended(0):
                return
            log.warning("%s ended; starting it again", self._name)
            self._forget(self._pid)
        self._lifeline, held = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(self._lifeline)
            self._work()
        os.close(held)
        self._pid = pid

    def end(self) -> None:
        """Stop the process gracefully, and wait until it has ended."""
        if self._pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)
            if not self._has_ended(_GRACE):
                os.kill(self._pid, signal.SIGKILL)
                self._has_ended(None)
        self._forget(self._pid)

    def _has_ended(self, seconds: float | None) -> bool:
        """Return whether the process ends within `seconds`; None waits for it."""
        return bool(select.select([self._lifeline], [], [], seconds)[0])

    def _forget(self, pid: int) -> None:
        with suppress(ChildProcessError):  # gunicorn's master was first
            os.waitpid(pid, 0)
        metrics.forget_process(pid)
        os.close(self._lifeline)
        self._pid = None

    def _work(self) -> None:
        """Do the work of the child. Does not return."""
        code = 1
        try:
            for name in Arbiter.SIGNALS:
                signal.signal(name, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _show_name(self._name)
            gc.freeze()
            self._run()
            code = 0
        except BaseException:
            log.exception("%s failed", self._name)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _show_name(name: str) -> None:
    """Set the name of this process, at most 15 bytes. It can only be done on Linux."""
    if sys.platform == "linux":
        # Not by /proc/self/comm: only root may write it in a process that others may not trace.
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
