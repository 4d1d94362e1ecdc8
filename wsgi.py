"""For any WSGI server: `gunicorn wsgi:app`."""

import os

from portal import telemetry
from portal.app import create_app
from portal.settings import read_settings

settings = read_settings(os.environ)
telemetry.begin(settings)
app = create_app(settings)
