"""One process of the cluster, which can be ended, killed and started again."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support.peers import StartedProcess, start_process

START_SECONDS = 60.0
STOP_SECONDS = 60.0


class Member:
    """A process by its name; it leads a group of its own, so that what it forked goes with it."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        environment: Mapping[str, str],
        is_ready: Callable[[], bool],
        *,
        ends_at: signal.Signals = signal.SIGTERM,
        cwd: Path,
    ) -> None:
        self.name, self.environment = name, dict(environment)
        self._argv, self._is_ready, self._ends_at, self._cwd = argv, is_ready, ends_at, cwd
        self._said = ""
        self._holds: ExitStack | None = None
        self._started: StartedProcess | None = None

    @property
    def pid(self) -> int:
        """The process id, which is its group's too; of a gunicorn it is the master's."""
        return self._running.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._started is not None and self._started.process.poll() is None

    def output(self) -> str:
        """Everything it has said, in all of its lives."""
        return self._said + (self._started.output() if self._started else "")

    def begin(self) -> None:
        """Start it without waiting for it."""
        assert not self.is_running, f"{self.name} runs already"
        self._leave()
        self._holds = ExitStack()
        self._started = self._holds.enter_context(
            start_process(self._argv, self.environment, lambda: True, cwd=self._cwd)
        )

    def wait(self) -> None:
        """Wait until it is ready. Raises AssertionError, with what it said, where it ends before
        that."""
        self.wait_until(self._is_ready)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait until a question about it is answered yes. Raises AssertionError, as `wait` does."""
        self._running.wait_until(is_so, START_SECONDS)

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.begin()
        self.wait()

    def stop(self) -> int:
        """Ask it to end, wait until it has, and return its exit code."""
        self.signal(self._ends_at)
        code = self._running.process.wait(STOP_SECONDS)
        self._leave()
        return code

    def kill(self) -> None:
        """End it and all that it forked at once, as a power cut does."""
        os.killpg(self.pid, signal.SIGKILL)
        self._running.process.wait()
        self._leave()

    def signal(self, number: int) -> None:
        """Send a signal to the process itself, not to what it forked."""
        self._running.process.send_signal(number)

    def end(self) -> None:
        """Make sure that nothing of it is left, whatever state it is in. What it holds is not
        needed any more."""
        if self.is_running:
            self.kill()
        self._leave()

    @property
    def _running(self) -> StartedProcess:
        assert self._started is not None, f"{self.name} does not run"
        return self._started

    def _leave(self) -> None:
        if self._started is not None:
            self._said, self._started = self.output(), None
        if self._holds is not None:
            self._holds.close()
            self._holds = None


class Postgres(Member):
    """A PostgreSQL; it stops without waiting for its clients."""

    def end(self) -> None:
        """As above, but by its own hand: it has shared memory to give back."""
        if self.is_running:
            self.stop()
        super().end()


class Served(Member):
    """One that answers at a port of its own; `url` is its address."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        environment: Mapping[str, str],
        is_ready: Callable[[], bool],
        *,
        port: int,
        **options: Any,
    ) -> None:
        super().__init__(name, argv, environment, is_ready, **options)
        self.port, self.url = port, f"http://127.0.0.1:{port}"
