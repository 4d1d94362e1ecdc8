"""For any WSGI server: `gunicorn wsgi:app`."""

from portal import environment, telemetry
from portal.app import create_app
from portal.settings import read_settings

environment.withdraw()
settings = read_settings(environment.given())
telemetry.begin(settings)
app = create_app(settings)
