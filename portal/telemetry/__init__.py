"""Logs, metrics and traces for operators, without data about servers, users or secrets."""

import logging
import os

from portal.settings import Settings
from portal.telemetry import logs, metrics, traces


def begin(settings: Settings) -> None:
    """Start logs, metrics and traces as configured. Call once per process, after a fork."""
    logs.begin(settings.log_format, settings.log_level)
    if settings.metrics:
        metrics.begin()
    if complaint := traces.begin(os.environ):
        logging.getLogger("portal").warning(complaint)
