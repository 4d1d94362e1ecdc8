"""What an operator sees of a running portal: logs, metrics and traces. Knows nothing of servers,
people or secrets."""

import logging
import os

from portal.settings import Settings
from portal.telemetry import logs, metrics, traces


def begin(settings: Settings) -> None:
    """Log, count and trace as the operator wants it; once a process, after the fork that made
    it."""
    logs.begin(settings.log_format, settings.log_level)
    if settings.metrics:
        metrics.begin()
    if complaint := traces.begin(os.environ):
        logging.getLogger("portal").warning(complaint)
